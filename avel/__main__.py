"""Runs the command line: `python -m avel` is `avel`."""

from avel.cli import main

main()
