"""What a dataset says: its samples, videos and splits, one file for each format."""
