"""The fusion heads, one file each."""
