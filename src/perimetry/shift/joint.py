"""One p-value from the scores of several taps: the smallest of their conformal p-values, ranked once more.

The smallest of several p-values is no p-value: with three taps that know nothing of each other it is below .05 in one
clean prompt out of seven. It becomes one by being ranked among the same minimum of every other prompt. Write s_1 ... s_n for the score
vectors of the calibration prompts of a group and s_0 for the new one. All n + 1 are put into one bag, and each of them,
the new one not set apart, gets in each tap the share of the bag that scores at least as high, and then the smallest of
these shares. For the new prompt that share is its conformal p-value in the tap, for a calibration prompt it is the one
that it would have had, had it been the new prompt (leave one out). Since the bag has no order, the n + 1 minima are
exchangeable whenever the prompts are, however the taps depend on each other, and the rank of one among exchangeable
values is a valid p-value: P(p <= alpha) <= alpha. This is full (transductive) conformal prediction (Vovk, Gammerman and Shafer
2005, section 2.2) with the min-P statistic of Westfall and Young (1993). Nothing is split off, so that p reaches 1 / (n + 1); and with
one tap it is the usual conformal p-value.

Minima are ties where two prompts lead in two taps. They are broken by the second smallest share, then by the third: as
much a function of the bag alone, hence as valid, and without it a prompt that leads in one tap could not be below
(number of taps) / (n + 1).
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt
from perimetry.errors import CorruptArtifact, NonFinite, TooFewSamples, UsageError
from perimetry.shift.conformal import LengthGroups

__all__ = ["JointCalibration", "JointPValues", "Yardstick", "least_p"]

CHUNK: Final = 2**21
"""Comparisons that are held at once, at most."""


class JointPValues(NamedTuple):
    """What several taps together say of some prompts."""

    p: PerPrompt
    """In [1 / (n + 1), 1]; low = further from clean text. Valid, which the smallest of the taps' p-values is not."""
    least: PerPrompt
    """The smallest of the taps' conformal p-values within the group."""
    group: tuple[str, ...]
    """The group that each prompt belongs to."""
    fallback: Bool[Tensor, " prompt"]
    """True where that group had too few calibration prompts and the pooled set was used."""


class LeastP(NamedTuple):
    """Combined p-values against one set of calibration prompts, in float64."""

    p: PerPrompt
    """Rank of the minimum among the leave-one-out minima."""
    least: PerPrompt
    """The minimum itself: the smallest conformal p-value of the taps."""


def _above(scores: Float[Tensor, "n tap"], others: Float[Tensor, "prompt tap"]) -> Int[Tensor, "prompt tap"]:
    """For each of `others` and each tap: how many of `scores` are at least as high."""
    columns = zip(scores.T.contiguous().sort(1).values, others.T.contiguous(), strict=True)
    return torch.stack([len(scores) - torch.searchsorted(have, new, side="left") for have, new in columns], 1)


def least_p(calibration: Float[Tensor, "n tap"], scores: Float[Tensor, "prompt score"]) -> LeastP:
    """Combined conformal p-values of prompts, each judged alone against the calibration prompts. Ties in full count
    against the alarm. Errors: `UsageError` for another number of taps.

    Worked by hand: both taps rank the new prompt first of four, which no other prompt can say.

    >>> clean = torch.tensor([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]])
    >>> least_p(clean, torch.tensor([[9.0, 9.0], [2.5, 0.0]])).p
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    if calibration.shape[1] != scores.shape[1]:
        raise UsageError(
            f"the prompts have scores of {scores.shape[1]} taps, the calibration of {calibration.shape[1]}; give a score of "
            "each tap"
        )
    n, taps = calibration.shape
    own = _above(calibration, calibration)
    new = _above(calibration, scores) + 1
    ranked = new.sort(1).values
    p = torch.empty(scores.shape[0], dtype=torch.float64)
    step = max(1, CHUNK // max(1, n * taps))
    for start in range(0, scores.shape[0], step):
        part = slice(start, start + step)
        # The new prompt is in the bag of every calibration prompt that it reaches.
        others = (own[None] + (scores[part, None] >= calibration[None])).sort(2).values
        p[part] = (1 + _at_most(others, ranked[part, None]).sum(1)).double() / (n + 1)
    return LeastP(p, ranked[:, 0].double() / (n + 1))


def _at_most(one: Int[Tensor, "prompt n tap"], other: Int[Tensor, "prompt 1 tap"]) -> Bool[Tensor, "prompt n"]:
    """Whether a row comes before another one or equals it, in the order of the dictionary."""
    differ = one != other
    first = differ.int().argmax(2, keepdim=True)
    less = (one < other).gather(2, first)[:, :, 0]
    return less | ~differ.any(2)


class Yardstick(NamedTuple):
    """What the score of each tap is on clean prompts apart from the calibration."""

    mean: Float[Tensor, " tap"]
    """Mean in each tap."""
    deviation: Float[Tensor, " tap"]
    """Standard deviation in each tap."""

    @classmethod
    def of(cls, scores: Float[Tensor, "prompt tap"]) -> "Yardstick":
        """From the scores of some clean prompts; a tap in which all score alike gets the deviation one."""
        deviation = scores.double().std(0, correction=0)
        mean = scores.double().mean(0)
        return cls(mean.float(), torch.where(deviation > 0, deviation, 1.0).float())

    def height(self, scores: Float[Tensor, "prompt tap"]) -> PerPrompt:
        """The largest score of the taps, in deviations above the clean mean; a function of each prompt alone.

        >>> Yardstick(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 2.0])).height(torch.tensor([[1.0, 9.0]]))
        tensor([2.5000])
        """
        return ((scores - self.mean) / self.deviation).amax(1)


@final
class JointCalibration:
    """Scores of clean calibration prompts in several taps, prompt by prompt, with groups of like length."""

    def __init__(
        self,
        scores: Float[Tensor, "n tap"],
        lengths: PerPrompt,
        groups: LengthGroups,
        minimum: int,
        yardstick: Yardstick,
    ) -> None:
        """`lengths`: tokens of each prompt that counted, in the tap where most did; `yardstick`: for drift, from other prompts."""
        self.scores = scores
        self.lengths = lengths
        self.groups = groups
        self.minimum = minimum
        self.yardstick = yardstick

    @classmethod
    def fit(
        cls,
        scores: Float[Tensor, "n tap"],
        lengths: PerPrompt,
        yardstick: Yardstick,
        *,
        groups: int = 4,
        minimum: int = 50,
    ) -> "JointCalibration":
        """Calibrate on clean prompts that no detector was fitted on. Errors: `TooFewSamples`, `NonFinite`."""
        if lengths.numel() < 2:
            raise TooFewSamples(f"calibration needs clean prompts, at least 2, got {lengths.numel()}; give more text")
        _check(scores)
        return cls(scores.float(), lengths.float(), LengthGroups.fit(lengths, groups), minimum, yardstick)

    def p_values(self, scores: Float[Tensor, "prompt tap"], lengths: PerPrompt) -> JointPValues:
        """Combined p-values within groups; a group with fewer prompts than the minimum uses all. Errors: `NonFinite`."""
        _check(scores)
        labels, mine, own = self.groups.names(lengths), self.groups.index(lengths), self.groups.index(self.lengths)
        p, least = torch.empty(2, scores.shape[0], dtype=torch.float64).unbind(0)
        fallback = torch.zeros(scores.shape[0], dtype=torch.bool)
        for group in mine.unique().tolist():
            rows, members = mine == group, own == group
            short = int(members.sum()) < self.minimum
            found = least_p(self.scores if short else self.scores[members], scores[rows].float())
            p[rows], least[rows], fallback[rows] = found.p, found.least, short
        return JointPValues(p, least, labels, fallback)

    def sizes(self) -> dict[str, int]:
        """Calibration prompts of each group that is large enough, and of the pooled set."""
        own = self.groups.index(self.lengths)
        counted = {label: int((own == i).sum()) for i, label in enumerate(self.groups.labels)}
        return {k: v for k, v in counted.items() if v >= self.minimum} | {"pooled": len(own)}

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors."""
        minimum = torch.tensor([self.minimum])
        found = {"scores": self.scores, "lengths": self.lengths, "edges": self.groups.edges, "minimum": minimum}
        return found | self.yardstick._asdict()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "JointCalibration":
        """The calibration that `state` was taken from. Errors: `CorruptArtifact`."""
        try:
            scores, lengths, edges = state["scores"], state["lengths"], state["edges"]
            minimum, yardstick = int(state["minimum"]), Yardstick(state["mean"], state["deviation"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CorruptArtifact(f"this is no state of a joint calibration: {error}; calibrate again") from error
        if (
            scores.ndim != 2
            or lengths.shape != scores.shape[:1]
            or edges.ndim != 1
            or yardstick.mean.shape != scores.shape[1:]
        ):
            raise CorruptArtifact(
                f"a joint calibration with scores {tuple(scores.shape)} and lengths {tuple(lengths.shape)} contradicts "
                "itself; calibrate again"
            )
        return cls(scores, lengths, LengthGroups(edges), minimum, yardstick)

    def columns(self, taps: Sequence[str]) -> dict[str, PerPrompt]:
        """The scores of each tap, prompt by prompt."""
        return dict(zip(taps, self.scores.unbind(1), strict=True))


def _check(scores: Tensor) -> None:
    if not bool(scores.isfinite().all()):
        raise NonFinite("the score of a tap holds NaN or infinity; finite scores are wanted; leave that prompt out")
