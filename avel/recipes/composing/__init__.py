"""A small synthetic dataset: real mp4 files whose events are known by construction."""
