"""What trained heads are worth: predictions, metrics, tables of runs."""
