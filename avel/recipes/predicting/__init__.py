"""`avel predict`: the events in any video, and the files and pictures that hold them."""
