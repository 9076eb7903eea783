"""Media files on the grid: decoding, one clock for pictures and sound, frames, log-mel."""
