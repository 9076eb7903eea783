"""`avel plot`, and the style of all pictures."""
