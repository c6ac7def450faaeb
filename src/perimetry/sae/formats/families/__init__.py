"""Formats of other tools that are read and not written; one file a family, one line in `FAMILIES`."""

from perimetry.sae.formats.record import Reader

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Reader] = {}
"""Name -> how files of the family are recognised and read."""
