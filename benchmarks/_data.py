"""Activations to train on: planted by seed, or rows of a store; as files that the interpreters of all libraries read."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from perimetry.activations.store import ActivationStore
from perimetry.runtime import generator

__all__ = ["Files", "planted", "write_rows"]

ACTIVE, RANK, NOISE, PIECE = 24, 16, 0.05, 4096
CONCEPTS = 4096


class Files(NamedTuple):
    """Where the rows lie."""

    data: Path
    """Rows to train on (.npy, float32)."""
    held_out: Path
    """Rows to evaluate on."""
    name: str
    """What they are, for the results."""


def planted(rows: int, d_model: int, seed: int) -> Iterator[Tensor]:
    """Activations with structure, piece by piece: a part of low rank, a sum of a few of 4,096 directions of which some
    are much more frequent than others, and noise."""
    fixed = generator(0)
    directions = torch.nn.functional.normalize(torch.randn(CONCEPTS, d_model, generator=fixed), dim=1)
    common = torch.randn(RANK, d_model, generator=fixed) / d_model**0.5 / torch.arange(1, RANK + 1).sqrt()[:, None]
    rng = generator(seed + 1)
    for first in range(0, rows, PIECE):
        n = min(PIECE, rows - first)
        which = (torch.rand(n, ACTIVE, generator=rng).pow(3) * CONCEPTS).long()
        amount = 0.5 + torch.rand(n, ACTIVE, 1, generator=rng)
        low = torch.randn(n, RANK, generator=rng) @ common
        yield (directions[which] * amount).sum(1) + low + NOISE * torch.randn(n, d_model, generator=rng)


def shuffled(source: ActivationStore, first: int, stop: int) -> Iterator[Tensor]:
    """Rows of a store in a shuffled order, piece by piece."""
    order = source.permutation(0)
    for at in range(first, stop, PIECE):
        yield source.rows(order(torch.arange(at, min(stop, at + PIECE)))).float()


def write(path: Path, pieces: Iterator[Tensor], rows: int, d_model: int) -> None:
    """The pieces, one after another, as one array."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, d_model))
    at = 0
    for piece in pieces:
        out[at : at + len(piece)] = piece.numpy()
        at += len(piece)
    out.flush()


def write_rows(folder: Path, rows: int, held_out: int, d_model: int, store: Path | None) -> Files:
    """`rows` activations and some more to evaluate on; planted ones where the store is of another width or too short."""
    files = Files(folder / f"{d_model}-{rows}.npy", folder / f"{d_model}-{rows}-held-out.npy", "planted")
    if store is not None:
        source = ActivationStore.open(store, verify=False)
        wide = source.rows(torch.zeros(1, dtype=torch.int64)).shape[1]
        if wide == d_model and len(source) >= 2 * held_out:
            end = min(len(source), rows + held_out)
            write(files.held_out, shuffled(source, 0, held_out), held_out, d_model)
            write(files.data, shuffled(source, held_out, end), end - held_out, d_model)
            return files._replace(name="store")
    write(files.data, planted(rows, d_model, 0), rows, d_model)
    write(files.held_out, planted(held_out, d_model, 1), held_out, d_model)
    return files
