"""The table of all formats that can be read, and the search for the one that a path holds."""

from pathlib import Path

from perimetry.errors import MissingFile, UnknownName, UsageError
from perimetry.sae.formats.families import READERS as FAMILIES
from perimetry.sae.formats.record import Reader
from perimetry.sae.formats.saelens_read import read_saelens, recognises_saelens

__all__ = ["READERS", "reader_of"]

READERS: dict[str, Reader] = {
    "saelens": Reader(
        recognises_saelens,
        read_saelens,
        "SAELens: finished SAEs and transcoders of version 6 and before, and training checkpoints",
    ),
    **FAMILIES,
}
"""Name -> reader."""


def reader_of(path: Path, family: str | None = None) -> str:
    """Name of the reader for a path: the one asked for, or the only one that recognises its files.

    Errors: `MissingFile`, `UnknownName`, `UsageError` where none or several recognise it.
    """
    if not path.exists():
        raise MissingFile(f"nothing at {path}; give the folder or the file of a dictionary")
    if family is not None:
        if family not in READERS:
            raise UnknownName("format", family, READERS)
        return family
    found = [name for name, reader in READERS.items() if reader.recognises(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{path} is of no known format ({', '.join(sorted(READERS))}); say which with --format")
    raise UsageError(f"{path} could be {' or '.join(sorted(found))}; say which with --format")
