"""`avel report`: a static page about runs, with numbers, charts and a browser of the clips."""
