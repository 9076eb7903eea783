"""`avel leaderboard`: every head under one protocol, as a table and a page."""
