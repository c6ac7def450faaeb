"""A small planted dictionary as a source of activations, and the run that a test may kill."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from perimetry.runtime import generator
from perimetry.train import TrainConfig, train

D_MODEL, CONCEPTS, ACTIVE = 32, 64, 3


class Planted:
    """Sparse sums of planted directions around an offset; the batch of a step depends on seed and step alone."""

    def __init__(self, rows: int | None = None, seed: int = 0) -> None:
        source = generator(1000 + seed)
        directions = torch.randn(CONCEPTS, D_MODEL, generator=source)
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        self.offset = torch.randn(D_MODEL, generator=source)
        self.rows = rows
        self.opened: list[int] = []

    def draw(self, n: int, seed: int) -> Tensor:
        source = generator(seed)
        chosen = torch.rand(n, CONCEPTS, generator=source).argsort(dim=1)[:, :ACTIVE]
        amplitudes = 1 + torch.rand(n, ACTIVE, generator=source)
        codes = torch.zeros(n, CONCEPTS).scatter_(1, chosen, amplitudes)
        return 3 * (codes @ self.directions + self.offset)

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Tensor]:
        self.opened.append(start_step)
        step = start_step
        while self.rows is None or (step + 1) * batch <= self.rows:
            yield self.draw(batch, seed * 1_000_003 + step)
            step += 1


def config(**changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "architecture": "batchtopk",
        "width": 128,
        "k": ACTIVE,
        "tokens": 64 * 60,
        "batch": 64,
        "lr": 3e-3,
        "fit_tokens": 256,
        "threshold_tokens": 512,
        "checkpoint_every": 7,
        "log_every": 5,
    }
    return TrainConfig.model_validate(values | changes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(config(architecture=sys.argv[2], tokens=64 * int(sys.argv[3])), Planted(), Path(sys.argv[1]))
