"""Readings drawn from known laws, and the calibration that they belong to."""

import torch

from perimetry.shift.conformal import Calibration
from perimetry.shift.drift import DriftReference
from perimetry.shift.reading import Reading

__all__ = ["DIGEST", "drawn", "make_readings", "make_reference"]

DIGEST = "d" * 64
NAMES = ("surprise", "nll", "l0")


def drawn(n: int, seed: int, *, shift: float = 0.0, coupling: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated scores (n, 3), the last one in whole numbers, and lengths; longer prompts score higher."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 121, (n,), generator=draw).float()
    common = torch.randn(n, 1, generator=draw)
    rows = coupling * common + (1 - coupling**2) ** 0.5 * torch.randn(n, 3, generator=draw)
    rows[:, 2] = (2 * rows[:, 2]).round()
    rows[:, 0] += lengths / 60 + shift
    return rows, lengths


def make_reference(n: int = 300, seed: int = 0, *, minimum: int = 50) -> DriftReference:
    rows, lengths = drawn(n, seed)
    scores = {name: rows[:, i].contiguous() for i, name in enumerate(NAMES)}
    return DriftReference(Calibration.fit(scores, lengths, minimum=minimum), "surprise", DIGEST)


def make_readings(reference: DriftReference, rows: torch.Tensor, lengths: torch.Tensor) -> list[Reading]:
    found = reference.calibration.p_values("surprise", rows[:, 0].contiguous(), lengths)
    return [
        Reading(
            id=f"p{i}",
            score=float(rows[i, 0]),
            p_value=float(found.p[i]),
            flagged=bool(found.p[i] <= 0.05),
            alpha=0.05,
            group=found.group[i],
            fallback=bool(found.fallback[i]),
            tokens_scored=int(lengths[i]),
            tokens_excluded=1,
            truncated=False,
            detector="surprise",
            scores={name: float(rows[i, j]) for j, name in enumerate(NAMES)},
            tokens=(),
            concepts=(),
            meter=DIGEST,
        )
        for i in range(rows.shape[0])
    ]
