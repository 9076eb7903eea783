"""Whole ways across the layers: the demo, and what needs encoders and heads together."""
