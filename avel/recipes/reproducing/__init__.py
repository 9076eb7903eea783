"""`avel reproduce`: measures the paper's tables on other clips, beside the paper's figures."""
