"""What an asset is: the pinned file it comes out of, how it is prepared, and under what terms it may be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["AssetSpec", "Inputs", "Origin", "RawFile"]

Origin = Literal["index", "npm", "url"]


class RawFile(NamedTuple):
    """One pinned file of the outside world."""

    filename: str
    """Its name there."""
    sha256: str
    """SHA-256 of its bytes, in hexadecimal."""
    size: int | None
    """Its bytes; None when not known."""
    origin: Origin
    """`index`: the package index that pip uses; `npm`: the npm registry; `url`: an address."""
    project: str
    """The project on the index, the package on npm, or the address itself."""
    version: str = ""
    """The version on npm; the file name says it elsewhere."""


class Inputs(NamedTuple):
    """What a preparation may read."""

    raw: Path | None
    """The verified file, where the asset has one."""
    needs: dict[str, Path]
    """Prepared folders of the assets that this one is made from."""
    scratch: Path
    """An empty folder for what is needed on the way; removed afterwards."""
    progress: bool = False
    """Whether to show a bar, on standard error."""


class AssetSpec(NamedTuple):
    """One named asset."""

    name: str
    """The name that commands take."""
    kind: Literal["model", "text"]
    """A folder that Hugging Face classes load, or gzipped JSONL files."""
    summary: str
    """One line for the list."""
    licence: str
    """The terms of the content."""
    raw: RawFile | None
    """What is downloaded; None for an asset made from others alone."""
    prepare: Callable[[Inputs, Path], None]
    """Write the prepared files into an empty folder. Same inputs, same bytes."""
    prepared_bytes: int
    """About how much disk the prepared folder and the work on it take at most."""
    version: int = 1
    """Raised whenever `prepare` would write other bytes."""
    needs: tuple[str, ...] = ()
    """Names of the assets that this one is made from."""
