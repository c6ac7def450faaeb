"""Clean text that is not trained on: what tuning costs there, looked at while it goes on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.activations.prompts import length_batches
from perimetry.activations.twins import Row
from perimetry.errors import TooFewSamples
from perimetry.robust.adapter import Tunable
from perimetry.robust.objectives import Place, distances
from perimetry.robust.passes import head, run

__all__ = ["Guard", "Look"]


class Look(NamedTuple):
    """One look at the guarded text."""

    clean: float
    """Next-token loss, in nats a token."""
    rise: float
    """How far that lies above the untuned model's, as a share; below 0 = better."""
    retain: float
    """Mean squared distance at the tap from the untuned model, a share of the squared norm there, at most 1 a token: one that became an
    attention sink lies thousands of times its norm away and must not speak for all others."""


class _Sums(NamedTuple):
    nll: float
    tokens: int
    residual: list[Tensor]
    counts: list[Tensor]


class Guard:
    """What the untuned model makes of some clean texts, and how far the tuned one lies from that."""

    def __init__(self, tunable: Tunable, rows: Sequence[Row], place: Place, tokens: int) -> None:
        """Errors: `TooFewSamples` without texts."""
        if not rows:
            raise TooFewSamples("no clean text is left to watch the tuning with; give more")
        self.tunable, self.rows, self.place, self.tokens = tunable, list(rows), place, tokens
        with tunable.base():
            self.base = self._read()

    @torch.no_grad()
    def _read(self, counts: Sequence[Tensor] | None = None) -> _Sums:
        """`counts`: which tokens of each pass are compared; None takes those that the policy lets count now."""
        nll, count, residual, compared = 0.0, 0, [], []
        for number, members in enumerate(length_batches([len(row.ids) for row in self.rows], self.tokens)):
            rows = [self.rows[i] for i in members]
            found = run(self.tunable.lm, rows, self.place.layer, self.place.policy, to_the_end=True)
            assert found.hidden is not None
            compared.append(found.counts if counts is None else counts[number])
            residual.append(found.residual[compared[-1]].float())
            for place, row in enumerate(rows):
                ids = torch.tensor(row.ids, device=found.hidden.device)
                logs = head(self.tunable.lm, found.hidden[place, : len(row.ids) - 1])
                nll -= float(logs.gather(1, ids[1:, None]).double().sum())
                count += len(row.ids) - 1
        return _Sums(nll, count, residual, compared)

    def look(self) -> Look:
        """The tuned model now."""
        now = self._read(self.base.counts)
        moved = [distances(a, b) for a, b in zip(now.residual, self.base.residual, strict=True)]
        # NaN stays NaN, so that a broken model is not taken for one that moved by its own norm.
        return Look(now.nll / now.tokens, now.nll / self.base.nll - 1, float(torch.cat(moved).clamp(max=1.0).mean()))
