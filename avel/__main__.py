"""Runs the command line: `python -m avel` is `avel`."""

import sys


def main() -> None:
    """Runs the `avel` command. Ctrl-C prints one line, also in the half second of loading modules."""
    try:
        from avel.cli import main as run

        run()
    except KeyboardInterrupt:
        print("avel: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
