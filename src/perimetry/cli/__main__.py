"""`python -m perimetry.cli`, and what the console script calls."""

import sys

from perimetry.cli import main

__all__ = ["run"]


def run() -> None:
    """Run the command line and exit with its code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
