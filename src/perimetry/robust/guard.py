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
    """Mean squared distance at the tap from the untuned model, a share of the squared norm there."""


class _Sums(NamedTuple):
    nll: float
    tokens: int
    residual: list[Tensor]


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
    def _read(self) -> _Sums:
        nll, count, residual = 0.0, 0, []
        for members in length_batches([len(row.ids) for row in self.rows], self.tokens):
            rows = [self.rows[i] for i in members]
            found = run(self.tunable.lm, rows, self.place.layer, self.place.policy, to_the_end=True)
            assert found.hidden is not None
            residual.append(found.residual[found.counts].float())
            for number, row in enumerate(rows):
                ids = torch.tensor(row.ids, device=found.hidden.device)
                logs = head(self.tunable.lm, found.hidden[number, : len(row.ids) - 1])
                nll -= float(logs.gather(1, ids[1:, None]).double().sum())
                count += len(row.ids) - 1
        return _Sums(nll, count, residual)

    def look(self) -> Look:
        """The tuned model now."""
        now = self._read()
        pairs = zip(now.residual, self.base.residual, strict=True)
        # Where a token became an attention sink or ceased to be one, the sides no longer match.
        moved = [distances(a, b) if a.shape == b.shape else torch.full((1,), torch.inf) for a, b in pairs]
        return Look(now.nll / now.tokens, now.nll / self.base.nll - 1, float(torch.cat(moved).mean()))
