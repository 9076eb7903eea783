"""`avel cache-features`: runs encoders once over a clip store, and keeps their features in one HDF5 file."""
