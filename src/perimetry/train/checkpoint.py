"""Checkpoints: everything that a bit-exact resume needs, written atomically, the last two kept."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from perimetry.artifact import read_artifact, write_artifact
from perimetry.errors import CorruptArtifact, MissingFile, NonFinite
from perimetry.storage import remove_stale

__all__ = ["Checkpoint", "latest_checkpoint", "remove_checkpoints", "save_checkpoint"]

KIND = "checkpoint"
KEEP = 2


class Checkpoint(NamedTuple):
    """The state of a training after some step."""

    step: int
    """Steps done."""
    tensors: dict[str, Tensor]
    """Parameters, optimiser moments, counters."""
    document: dict[str, Any]
    """Config, scale and the numbers that are no tensors."""


def _folder(root: Path, step: int) -> Path:
    return root / f"step-{step:09d}"


def _existing(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under `root` and remove all but the last two. Errors: `StorageFull`, `NonFinite`."""
    document = checkpoint.document | {"step": checkpoint.step}
    write_artifact(_folder(root, checkpoint.step), KIND, {"state": checkpoint.tensors}, {"state": document})
    for old in _existing(root)[KEEP:]:
        _remove(old)


def latest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none. A damaged one gives way to the one before."""
    for folder in _existing(root):
        try:
            artifact = read_artifact(folder, KIND)
            document = artifact.documents["state"]
            return Checkpoint(int(document["step"]), artifact.tensors["state"], document)
        except (CorruptArtifact, MissingFile, NonFinite, KeyError):
            continue
    return None


def remove_checkpoints(root: Path) -> None:
    """Remove every checkpoint and what killed writers left."""
    for folder in _existing(root):
        _remove(folder)
    if root.is_dir():
        remove_stale(root)
        root.rmdir()


def _remove(folder: Path) -> None:
    # The manifest goes first, so that a half-removed folder is never taken for a checkpoint.
    for file in sorted(folder.iterdir(), key=lambda f: f.name != "manifest.json"):
        file.unlink()
    folder.rmdir()
