"""The fixed points of archetypal dictionaries: drawn from data and kept in a file, or seeded."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from perimetry.artifact import read_safetensors
from perimetry.axes import Acts
from perimetry.errors import CorruptArtifact, HashMismatch, MissingFile, NonFinite, TooFewSamples, WidthMismatch
from perimetry.runtime import generator
from perimetry.storage import atomic_file, hash_file

__all__ = ["Points", "choose_points", "read_points", "seeded_points", "write_points"]

Points = Float[Tensor, "point d_model"]
"""Rows of norm 1."""


def choose_points(acts: Acts, count: int, seed: int) -> Points:
    """`count` rows of `acts`, drawn without replacement, less the mean of all and brought to norm 1.

    The paper takes the centres of k-means clusters instead; centres can be given as `acts`, all of them. Errors: `TooFewSamples`.

    >>> choose_points(torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), 2, 0).abs().tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    centred = acts.float() - acts.float().mean(0)
    centred = centred[centred.norm(dim=1) > 0]
    if centred.shape[0] < count:
        raise TooFewSamples(
            f"{centred.shape[0]} activations that differ from their mean for {count} points; give more, or want fewer"
        )
    chosen = centred[torch.randperm(centred.shape[0], generator=generator(seed))[:count]]
    return chosen / chosen.norm(dim=1, keepdim=True)


def seeded_points(count: int, d_model: int, seed: int) -> Points:
    """Points uniform on the unit sphere: what is left of the method without data."""
    rows = torch.randn(count, d_model, generator=generator(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def write_points(points: Points, path: Path) -> str:
    """Write points to a safetensors file, atomically; returns its SHA-256. Errors: `StorageFull`."""
    with atomic_file(path) as partial:
        save_file({"points": points.detach().float().cpu().contiguous()}, partial)
    return hash_file(path)


def read_points(path: Path, d_model: int, sha256: str | None = None) -> Points:
    """The tensor `points` of a safetensors file, rows brought to norm 1.

    Errors: `MissingFile`, `CorruptArtifact`, `HashMismatch`, `WidthMismatch`, `NonFinite` (a row of zeros, too).
    """
    if not path.is_file():
        raise MissingFile(f"no file of points at {path}; make one with write_points, or leave points_file out")
    if sha256 is not None and hash_file(path) != sha256:
        raise HashMismatch(f"{path} has another SHA-256 than {sha256}; give the file that was meant, or its hash")
    points = read_safetensors(path).get("points")
    if points is None or points.ndim != 2 or not points.shape[0]:
        raise CorruptArtifact(f"{path} holds no matrix 'points'; make it again with write_points")
    if points.shape[1] != d_model:
        raise WidthMismatch(f"the points of {path} have width {points.shape[1]} but {d_model} is wanted; choose others")
    norms = points.float().norm(dim=1, keepdim=True)
    if not bool(((norms > 0) & torch.isfinite(norms)).all()):
        raise NonFinite(f"{path} holds points of norm 0, or not finite; directions are wanted; make it again")
    return points.float() / norms
