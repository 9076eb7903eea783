"""Training of trials of one architecture, together or in turn, and the files it leaves in a run."""
