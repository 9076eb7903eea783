"""Plots and the report, and what both read."""
