"""Two-stream encoder of AV-BT, its CNNs and their weights."""
