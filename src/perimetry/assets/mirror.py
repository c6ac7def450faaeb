"""`PERIMETRY_MIRROR`: a folder of copies, searched by SHA-256 before the network."""

import os
from collections.abc import Iterator
from pathlib import Path

from perimetry.assets.cache import known_hash
from perimetry.errors import MissingFile

__all__ = ["find_copy", "mirror_folder"]


def mirror_folder() -> Path | None:
    """The folder of copies, or None. Errors: `MissingFile` when the variable names no folder."""
    given = os.environ.get("PERIMETRY_MIRROR", "").strip()
    if not given:
        return None
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        raise MissingFile(f"PERIMETRY_MIRROR names {given}, which is no folder; mend or unset it")
    return folder


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(here) / name for name in sorted(names))


def find_copy(filename: str, sha256: str, size: int | None) -> Path | None:
    """A file of the mirror with this SHA-256, whatever its name; None without one.

    Only files of the right size are hashed (of the right name, when the size is not known).
    """
    folder = mirror_folder()
    if folder is None:
        return None
    for file in _files(folder):
        if not file.is_file():
            continue
        fits = file.name == filename if size is None else file.stat().st_size == size
        if fits and known_hash(file) == sha256:
            return file
    return None
