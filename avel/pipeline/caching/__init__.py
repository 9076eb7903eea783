"""`avel cache-features`: encoders over a clip store, once, into one HDF5 file."""
