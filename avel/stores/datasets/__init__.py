"""Datasets: videos, samples and splits, one file for each format."""
