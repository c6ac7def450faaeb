"""`python -m perimetry`."""

from perimetry.cli.__main__ import run

if __name__ == "__main__":
    run()
