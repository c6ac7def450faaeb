"""`python -m perimetry.cli`, and what the console script calls."""

import io
import sys

from perimetry.cli import main

__all__ = ["run"]


def run() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Prompts hold any character; one that the terminal cannot show must not end the command.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())


if __name__ == "__main__":
    run()
