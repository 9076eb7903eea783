"""Targets, losses, decoders and metrics, for each kind of label."""
