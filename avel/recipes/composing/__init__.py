"""A small dataset made from nothing: real mp4 clips whose events are known by construction."""
