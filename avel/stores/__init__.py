"""Files between the stages: Zarr clips, HDF5 features, Parquet manifest, run folder."""
