"""`avel plot`, and how all of avel's pictures look."""
