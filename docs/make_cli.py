"""Write docs/cli.md from the help of the command line: `python docs/make_cli.py`; with --check only compare."""

import sys
from pathlib import Path

from perimetry.cli import app
from perimetry.storage import write_bytes

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command line

<!-- Written by docs/make_cli.py from the help of the commands; change the help, then run `make docs`. -->

Every command prints this help with `--help`. A walk through them is in the [README](../README.md).

"""


def page() -> str:
    """The page as the commands describe themselves."""
    before, sys.argv = sys.argv, ["perimetry"]  # the usage lines are made from the name of the running program
    try:
        text = app.generate_docs(output_format="markdown", recursive=True)
    finally:
        sys.argv = before
    _, _, body = text.partition("\n")
    return HEAD + f"{app.help_epilogue}\n" + body.rstrip() + "\n"


def main() -> int:
    """Write the page, or say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page())
    write_bytes(PAGE, page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
