"""`avel train-head` and `avel sweep`: members of one architecture, trained together and kept."""
