"""Whether two dictionaries, of two seeds say, found the same latents; and which ones only one of them has.

A single dictionary has no stability: `measure` gives what chance would give it, against random directions, and `compare` the
numbers of two, each beside its chance level. A dictionary that finds what is there finds it from every start; how much of it
that is falls with width and with the strictness of the match (Paulo and Belrose, arXiv 2501.16615).
"""

from typing import ClassVar, Final, TypeVar, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.axes import Decoder
from perimetry.errors import Incompatible, TooFewSamples
from perimetry.evals.sae.base import Metric, Subject
from perimetry.evals.sae.held_out import TextEvaluation, require_readable
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.twins import (
    FeatureDiff,
    Firing,
    Latents,
    assigned_cosines,
    direction_twins,
    feature_diff,
    firing_twins,
    random_directions,
)
from perimetry.evals.sae.units import Cell, Units, means

__all__ = ["LEVELS", "Stability"]

LEVELS: Final = (70, 90)
"""Percent of cosine or correlation from which a latent has a twin."""
TOKENS: Final = 2048
First = Float[Tensor, "d_first width_first"]
Second = Float[Tensor, "d_second width_second"]
S = TypeVar("S", bound="Stability")


def _metrics() -> dict[str, Metric]:
    found = {
        "cosine": Metric(
            unit="cosine",
            higher=True,
            text="Of a decoder row with the nearest one of the other dictionary, mean over latents.",
        ),
        "assigned_cosine": Metric(
            unit="cosine", higher=True, text="The same with partners that are given once only (Hungarian assignment)."
        ),
        "correlation": Metric(
            unit="correlation",
            higher=True,
            text="Of a latent's firing with that of the most alike one of the other dictionary, on the same tokens; latents that fire "
            "at fewer than `least_fires` tokens, or at all, are left out.",
        ),
    }
    for level in LEVELS:
        found[f"twins_{level}"] = Metric(
            unit="share", higher=True, text=f"Latents with a direction of cosine {level / 100} or more in the other."
        )
        found[f"firing_twins_{level}"] = Metric(
            unit="share", higher=True, text=f"Latents with a latent of correlation {level / 100} or more in the other."
        )
    return found


@final
class Stability(TextEvaluation):
    """Matched latents of two dictionaries of one place."""

    name: ClassVar[str] = "stability"
    definition: ClassVar[str] = "1"
    source: ClassVar[str] = (
        "Sharkey et al. 2022 (mean max cosine); Paulo and Belrose, arXiv 2501.16615 (Hungarian assignment)"
    )
    metrics: ClassVar[dict[str, Metric]] = _metrics()

    firing: bool = True
    """Compare firing too, for which the model reads the text; False compares directions alone."""
    least_fires: int = Field(default=10, ge=1)
    """A latent with fewer firings in the text is left out of what is said of firing: its correlations are chance."""
    assign: int = Field(default=5000, ge=0)
    """Largest dictionary that is matched one to one, whose time grows with the cube of the width; `assigned_cosine` is left out
    above it."""
    same: float = Field(default=0.7, gt=0, le=1)
    """Cosine from which `diff` takes two latents for the same."""

    @classmethod
    def tiny(cls: type[S]) -> S:
        """Few short rows, and few firings wanted."""
        return cls(rows=8, context=32, batch=4, least_fires=2)

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:  # noqa: ARG002
        """The chance level: how near the latents come to random directions, as many. Arm `chance`; nothing of the text is read."""
        return self._directions(subject.sae.W_dec, self._random(subject.sae.W_dec), "", "chance")

    def compare(self, first: Subject, second: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """Latents of the first in the second, and with the case `back` those of the second in the first; units are latents.

        Arm `chance`: directions against random ones, firing against that of the other dictionary at shuffled tokens. Errors:
        `Incompatible` for two places, `WidthMismatch`, `TooFewSamples` where hardly a latent fires.
        """
        self._require_one_place(first, second)
        found = self._both_ways(first.sae.W_dec, second.sae.W_dec)
        if self.firing:
            one, two = self.firings(first, second, shelf, progress=progress)
            found += self._firing(one, two, "") + self._firing(two, one, "back")
        return found

    def diff(self, first: Subject, second: Subject, shelf: Shelf, *, progress: bool = False) -> FeatureDiff:
        """Latents that only one of the two has, and the change of firing rate of those that both have, on the text.

        Errors: as `compare`.
        """
        self._require_one_place(first, second)
        one, two = self.firings(first, second, shelf, progress=progress)
        return feature_diff(_latents(first, one), _latents(second, two), self.same)

    def firings(
        self, first: Subject, second: Subject, shelf: Shelf, *, progress: bool = False
    ) -> tuple[Firing, Firing]:
        """What fires where in the text, for each of the two. Errors: those of `held_rows`."""
        held = self.rows_once(first.place, shelf, progress=progress)
        acts = self.acts_once(first.place, held, shelf, progress=progress)["acts"]
        return _firing_of(first, acts), _firing_of(second, acts)

    def _require_one_place(self, first: Subject, second: Subject) -> None:
        require_readable(first)
        require_readable(second)
        first.place.policy.require_same(second.place.policy, repr(second.name))
        one, two = first.place.key(), second.place.key()
        other = [f"{name} is {two[name]!r}, wanted {one[name]!r}" for name in one if one[name] != two[name]]
        if other:
            raise Incompatible(
                f"{first.name!r} and {second.name!r} read two places: {'; '.join(other)}; give two dictionaries of one place"
            )

    def _random(self, like: Decoder) -> Decoder:
        return random_directions(like.shape[0], like.shape[1], self.seed)

    def _both_ways(self, first: First, second: Second) -> list[Units]:
        chance = self._directions(first, self._random(second), "", "chance")
        there = self._directions(first, second, "", "sae")
        back = self._directions(second, first, "back", "sae")
        return [*there, *(units for units in back if units.cell.metric != "assigned_cosine"), *chance]

    def _directions(self, first: First, second: Second, case: str, arm: str) -> list[Units]:
        names = _names(len(first))
        found = _levels("cosine", "twins", names, direction_twins(first, second).likeness, case, arm)
        if max(len(first), len(second)) <= self.assign:
            pairs = assigned_cosines(first, second)
            found.append(means(Cell("assigned_cosine", case, arm=arm), _names(len(pairs)), pairs))
        return found

    def _firing(self, first: Firing, second: Firing, case: str) -> list[Units]:
        fires = first.fires()
        enough = (fires >= self.least_fires) & (fires < first.total)
        if int(enough.sum()) < 1:
            raise TooFewSamples(
                f"no latent fires at {self.least_fires} or more of {first.total} tokens without firing at all of them; wanted one; give more text, lower "
                "least_fires, or set firing to false"
            )
        names = [name for name, kept in zip(_names(first.width), enough.tolist(), strict=True) if kept]
        found: list[Units] = []
        for arm, other in (("sae", second), ("chance", second.shuffled(self.seed))):
            likeness = firing_twins(first, other, self.least_fires).likeness[enough]
            found += _levels("correlation", "firing_twins", names, likeness, case, arm)
        return found


def _latents(subject: Subject, firing: Firing) -> Latents:
    return Latents(subject.name, subject.sae.W_dec.detach().cpu(), firing.rates())


def _names(width: int) -> list[str]:
    return [f"{i} of {width}" for i in range(width)]


def _levels(mean: str, share: str, names: list[str], likeness: Tensor, case: str, arm: str) -> list[Units]:
    found = [means(Cell(mean, case, arm=arm), names, likeness)]
    # A copy is one although its rows lose a bit of rounding.
    above = [(level, likeness >= level / 100 - 1e-9) for level in LEVELS]
    return found + [means(Cell(f"{share}_{level}", case, arm=arm), names, there) for level, there in above]


@torch.no_grad()
def _firing_of(subject: Subject, acts: Tensor) -> Firing:
    tokens: list[Tensor] = []
    latents: list[Tensor] = []
    for start in range(0, len(acts), TOKENS):
        codes = subject.sae.encode(acts[start : start + TOKENS].to(subject.sae.W_dec.device))
        row, slot = (codes.values != 0).nonzero(as_tuple=True)
        tokens.append((row + start).cpu())
        latents.append(codes.indices[row, slot].cpu())
    return Firing(torch.cat(tokens), torch.cat(latents), len(acts), subject.sae.d_sae)
