"""`avel train-head` and `avel sweep`: trials of one architecture, trained together and kept."""
