"""Cached features -> trained fusion heads -> metrics and predictions."""
