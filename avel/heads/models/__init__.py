"""Fusion heads, one file each."""
