"""Evaluation of trained heads: predictions, accuracies, tables of runs."""
