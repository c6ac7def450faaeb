"""npz, YAML and pickle files, opened in a process of their own and handed back as safetensors and JSON, which are checked again."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, MissingFile, TooLarge, UnsafeFormat
from perimetry.sae.formats.safety import read_strict_json
from perimetry.strict import looks_like

__all__ = ["Foreign", "open_npz", "open_pickle", "open_yaml"]

WORKER = Path(__file__).with_name("isolated_worker.py")
SECONDS = 600
MEMORY = 12 * 2**30
MAX_UNPACKED = 8 * 2**30
KINDS: dict[str, type[CorruptArtifact]] = {"TooLarge": TooLarge, "UnsafeFormat": UnsafeFormat}


class Foreign(NamedTuple):
    """What a file held."""

    tensors: dict[str, Tensor]
    """By name; those of nested dictionaries by their path, joined with dots."""
    plain: Any
    """Everything else, as JSON values."""


def _run(path: Path, kind: Literal["npz", "yaml", "pickle"], members: Collection[str] = ()) -> Foreign:
    if not path.is_file():
        raise MissingFile(f"no file {path}; check the path")
    with tempfile.TemporaryDirectory(prefix="perimetry-") as folder:
        request = {
            "path": str(path.resolve()),
            "out": folder,
            "kind": kind,
            "members": sorted(members),
            "seconds": SECONDS,
            "memory": MEMORY + 4 * path.stat().st_size,
            "size": MAX_UNPACKED,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(WORKER), json.dumps(request)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2 * SECONDS,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "HOME": folder, "OMP_NUM_THREADS": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CorruptArtifact(f"{path} was not opened within {2 * SECONDS} s; fetch it again") from error
        if done.returncode:
            error, why = _why(done)
            raise error(f"{path} cannot be opened as {kind}: {why}; fetch or make it again")
        weights = Path(folder, "tensors.safetensors")
        tensors = {k: t.clone() for k, t in read_safetensors(weights).items()} if weights.is_file() else {}
        return Foreign(tensors, read_strict_json(Path(folder, "plain.json")))


def _why(done: subprocess.CompletedProcess[str]) -> tuple[type[CorruptArtifact], str]:
    try:
        said = json.loads(done.stdout)
        return KINDS.get(said["kind"], CorruptArtifact), str(said["refused"])
    except (ValueError, KeyError, TypeError):
        return CorruptArtifact, f"its process ended with {done.returncode}, by its limits on time, memory or files"


def open_npz(path: Path, members: Collection[str]) -> dict[str, Tensor]:
    """The arrays of an npz, whose names must be among `members` (upper or lower case).

    Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`.
    """
    return _run(path, "npz", members).tensors


def open_yaml(path: Path) -> Any:
    """The values of a YAML file: no aliases, no duplicate keys. Errors: `MissingFile`, `CorruptArtifact`."""
    return _run(path, "yaml").plain


def open_pickle(path: Path, *, unsafe_pickle: bool) -> Foreign:
    """Tensors and plain values of a pickle, by torch's restricted reader.

    Errors: `UnsafeFormat` without `unsafe_pickle` and for one that would run code, `MissingFile`, `CorruptArtifact`, `TooLarge`,
    `NonFinite`.
    """
    if not path.is_file():
        raise MissingFile(f"no file {path}; check the path")
    if not unsafe_pickle:
        kind = looks_like(path)
        raise UnsafeFormat(
            f"{path} is a pickle{'' if kind in ('pickle', 'zip') else ' by its name'}, a format that can run code when it is "
            "opened; safetensors are wanted; if you trust where it comes from, add --unsafe-pickle: it is then opened with "
            "weights_only in a limited process of its own"
        )
    return _run(path, "pickle")
