"""`avel reproduce`: the paper's tables on one's own clips, its figures beside those measured."""
