"""`avel extract`: clips through isolated decoders into a store, planned, resumed, counted."""
