"""Reading files of strangers: only safetensors and strict JSON, and of these only what cannot hurt.

The headers of safetensors are read by `perimetry.strict` before the library sees them; here are the names of tensors and files.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.artifact import read_safetensors
from perimetry.errors import BadPath, BadShape
from perimetry.storage import hash_file, read_json
from perimetry.strict import CONTROL, LIMITS, Limits

__all__ = ["hash_files", "inside", "read_strict_json", "read_tensors", "require_names"]


def read_strict_json(path: Path, limits: Limits = LIMITS) -> Any:
    """A JSON file: no duplicate keys, no NaN, at most `limits.json` bytes and `limits.depth` levels.

    Errors: `MissingFile`, `BadHeader`, `BadPath`.
    """
    return read_json(path, most=limits.json, depth=limits.depth)


def read_tensors(
    path: Path, wanted: Collection[str], optional: Collection[str] = (), limits: Limits = LIMITS
) -> dict[str, Tensor]:
    """The tensors of a file, which are exactly `wanted`, and some of `optional`. Errors: also `BadShape` for others."""
    return require_names(path, read_safetensors(path, limits), wanted, optional)


def require_names(
    path: Path, tensors: Mapping[str, Tensor], wanted: Collection[str], optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors, when they are exactly `wanted` and some of `optional`. Errors: `BadShape`."""
    missing, extra = set(wanted) - tensors.keys(), tensors.keys() - set(wanted) - set(optional)
    if missing or extra:
        raise BadShape(
            f"{path}: missing {sorted(missing)}, unknown {sorted(extra)}; this kind has exactly {sorted(wanted)}"
            f"{f' and perhaps {sorted(optional)}' if optional else ''}; fetch or make it again"
        )
    return dict(tensors)


def inside(root: Path, name: str) -> Path:
    """The file `name` under `root`. Errors: `BadPath` for a name that leads elsewhere, by dots or by links."""
    parts = Path(name).parts
    if not name or CONTROL.search(name) or Path(name).is_absolute() or ".." in parts or "\\" in name:
        raise BadPath(f"{name!r} is no plain file name under {root}; mend the configuration that names it")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadPath(f"{path} is a link that leaves {root}; put the file itself there")
    return path


def hash_files(*files: Path) -> dict[str, str]:
    """File name -> SHA-256, of those that are there."""
    return {file.name: hash_file(file) for file in files if file.is_file()}
