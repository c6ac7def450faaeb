"""From scores to p-values: split conformal, within groups of like length; what the false-alarm rate then really is.

For inputs exchangeable with the calibration prompts of their group, P(p <= alpha) <= alpha on average over calibration
draws (Vovk et al. 2005). It is no guarantee against an adversary, nor for languages or lengths never calibrated.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt
from perimetry.errors import BadValue, CorruptArtifact, Incompatible, NonFinite, TooFewSamples, UnknownName, UsageError
from perimetry.measures.stats import beta_binomial_interval, beta_interval

__all__ = [
    "Calibration",
    "FalseAlarms",
    "LengthGroups",
    "PValues",
    "Threshold",
    "conformal_p",
    "false_alarm_interval",
    "threshold",
]

_POOLED: Final = "pooled"


class PValues(NamedTuple):
    """P-values of some prompts under one detector."""

    p: PerPrompt
    """In [1 / (n + 1), 1]; low = further from clean text."""
    group: tuple[str, ...]
    """The group that each prompt belongs to."""
    fallback: Bool[Tensor, " prompt"]
    """True where that group had too few calibration prompts and the pooled set was used."""
    n: Int[Tensor, " prompt"]
    """Calibration prompts that each p-value was taken against."""


class FalseAlarms(NamedTuple):
    """What the false-alarm rate of a calibrated threshold really is."""

    expected: float
    """floor(alpha (n + 1)) / (n + 1): the mean over calibration draws, for scores without ties."""
    standard_error: float
    """sqrt(alpha (1 - alpha) / (n + 2)): how much the realised rate varies from one calibration set to another."""
    low: float
    """Lower end of the exact interval of the realised rate."""
    high: float
    """Upper end."""
    n_calibration: int
    """Calibration prompts."""
    n_test: int | None
    """Test prompts on which the rate is realised; None means infinitely many."""


class Threshold(NamedTuple):
    """The score above which a prompt of a group raises an alarm."""

    group: str
    """Group, or `pooled`."""
    value: float
    """Alarm when the score is strictly greater; infinite where the group is too small for this alpha."""
    alarms: FalseAlarms
    """The realised false-alarm rate to expect."""


def conformal_p(calibration: Float[Tensor, " n"], scores: PerPrompt, *, two_sided: bool = False) -> PerPrompt:
    """(1 + #{calibration >= s}) / (n + 1); `two_sided`: twice the smaller of both tails, at most 1.

    `calibration` is sorted ascending. Ties count against the alarm, so that the p-value stays valid. In float64, where 5 /
    100 <= 0.05 holds as it should.

    >>> conformal_p(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 9.0]))
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    n, scores = calibration.numel(), scores.contiguous()
    above = n - torch.searchsorted(calibration, scores, side="left")
    p = (1 + above).double() / (n + 1)
    if two_sided:
        below = torch.searchsorted(calibration, scores, side="right")
        p = (2 * torch.minimum(p, (1 + below).double() / (n + 1))).clamp_max(1.0)
    return p


def _allowed(alpha: float, n: int) -> int:
    # The epsilon keeps .05 * 20 = 1.0000000000000002 or 0.9999999 from deciding.
    return math.floor(alpha * (n + 1) + 1e-9)


def threshold(calibration: Float[Tensor, " n"], alpha: float) -> float:
    """The score above which (strictly) the one-sided p-value is at most `alpha`; infinite when n < 1 / alpha - 1.

    >>> threshold(torch.arange(19.0), 0.1)
    17.0
    """
    k = _allowed(alpha, calibration.numel())
    return float(calibration[calibration.numel() - k]) if k else math.inf


def false_alarm_interval(
    alpha: float, n_calibration: int, n_test: int | None = None, confidence: float = 0.95
) -> FalseAlarms:
    """The realised false-alarm rate of a split conformal threshold at `alpha`.

    Given the calibration set, the rate over infinitely many prompts is Beta(k, n + 1 - k) with k = floor(alpha (n + 1))
    (Vovk 2012); over `n_test` prompts the count is beta-binomial. Exact for continuous scores, conservative with ties.
    Errors: `UsageError` for an alpha outside (0, 1), `TooFewSamples` for an empty calibration set.

    >>> false_alarm_interval(0.05, 98).standard_error
    0.021794494717703367
    """
    if not 0 < alpha < 1:
        raise UsageError(f"the false-alarm rate {alpha} is outside (0, 1); give, say, 0.05")
    if n_calibration < 1:
        raise TooFewSamples("a false-alarm interval needs calibration prompts and there are none; calibrate first")
    k, error = _allowed(alpha, n_calibration), math.sqrt(alpha * (1 - alpha) / (n_calibration + 2))
    if k == 0:
        low = high = 0.0
    elif n_test is None:
        low, high = beta_interval(k, n_calibration + 1 - k, confidence)
    else:
        low, high = beta_binomial_interval(n_test, k, n_calibration + 1 - k, confidence)
    return FalseAlarms(k / (n_calibration + 1), error, low, high, n_calibration, n_test)


@final
class LengthGroups:
    """Groups of prompts of like length: scorable tokens, cut at quantiles of the calibration lengths."""

    def __init__(self, edges: Int[Tensor, " edge"]) -> None:
        """Group i holds lengths in [edges[i - 1], edges[i])."""
        self.edges = edges

    @classmethod
    def fit(cls, lengths: PerPrompt, groups: int = 4) -> "LengthGroups":
        """Cut at quantiles; equal cuts fall together, so that there may be fewer groups."""
        shares = torch.arange(1, groups).double() / groups
        cuts = torch.unique(torch.quantile(lengths.double(), shares, interpolation="higher").long())
        return cls(cuts[cuts > int(lengths.min())])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the groups in order.

        >>> LengthGroups(torch.tensor([40, 80])).labels
        ('tokens 1-39', 'tokens 40-79', 'tokens 80+')
        """
        starts, ends = [1, *self.edges.tolist()], self.edges.tolist()
        return (*(f"tokens {a}-{b - 1}" for a, b in zip(starts, ends, strict=False)), f"tokens {starts[-1]}+")

    def index(self, lengths: PerPrompt) -> Int[Tensor, " prompt"]:
        """Group of each length."""
        return torch.searchsorted(self.edges, lengths.long(), side="right")

    def names(self, lengths: PerPrompt, strata: Sequence[str] | None = None) -> tuple[str, ...]:
        """Label of each prompt; `strata` (language, template) come first: `de, tokens 40-79`."""
        labels = self.labels
        plain = [labels[i] for i in self.index(lengths).tolist()]
        if strata is None:
            return tuple(plain)
        return tuple(f"{stratum}, {label}" for stratum, label in zip(strata, plain, strict=True))


@final
class Calibration:
    """Scores of clean calibration prompts, sorted, by detector and group."""

    def __init__(
        self,
        groups: LengthGroups,
        scores: dict[str, dict[str, Tensor]],
        minimum: int,
        two_sided: frozenset[str],
        order: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`scores[name][group]` sorted ascending; the group `pooled` holds all of them.

        `order[name]`: for each calibration prompt, in one order for all names, its place among the pooled scores.
        """
        self.groups = groups
        self.scores = scores
        self.minimum = minimum
        self.two_sided = two_sided
        self.order = dict(order or {})

    @classmethod
    def fit(
        cls,
        scores: Mapping[str, PerPrompt],
        lengths: PerPrompt,
        *,
        groups: int = 4,
        minimum: int = 50,
        strata: Sequence[str] | None = None,
        two_sided: Collection[str] = (),
    ) -> "Calibration":
        """Calibrate each name of `scores` on clean prompts that no detector was fitted on.

        `minimum`: a group with fewer prompts falls back to the pooled set. `two_sided`: names whose low scores are
        alarms too. Errors: `TooFewSamples`, `NonFinite`.
        """
        if lengths.numel() < 2:
            raise TooFewSamples(f"calibration needs clean prompts, at least 2, got {lengths.numel()}; give more text")
        cuts = LengthGroups.fit(lengths, groups)
        members: dict[str, list[int]] = {}
        for row, name in enumerate(cuts.names(lengths, strata)):
            members.setdefault(name, []).append(row)
        table: dict[str, dict[str, Tensor]] = {}
        order = {name: values.float().argsort().argsort().int() for name, values in scores.items()}
        for name, values in scores.items():
            _check_scores(name, values)
            table[name] = {group: values[rows].float().sort().values for group, rows in sorted(members.items())}
            table[name][_POOLED] = values.float().sort().values
        return cls(cuts, table, minimum, frozenset(two_sided), order)

    def joint(self, names: Sequence[str]) -> Float[Tensor, "prompt score"] | None:
        """Several scores of each calibration prompt; None where the meter is too old to have kept which go together."""
        if not set(names) <= self.order.keys():
            return None
        return torch.stack([self.scores[name][_POOLED][self.order[name].long()] for name in names], 1)

    def _of(self, name: str) -> dict[str, Tensor]:
        if name not in self.scores:
            raise UnknownName("calibrated score", name, self.scores)
        return self.scores[name]

    def p_values(
        self, name: str, scores: PerPrompt, lengths: PerPrompt, strata: Sequence[str] | None = None
    ) -> PValues:
        """P-values of prompts under the score `name`. Errors: `UnknownName`, `NonFinite`."""
        table = self._of(name)
        _check_scores(name, scores)
        labels = self.groups.names(lengths, strata)
        p, n = torch.empty(scores.numel(), dtype=torch.float64), torch.empty(scores.numel(), dtype=torch.int64)
        fallback = torch.zeros(scores.numel(), dtype=torch.bool)
        for label in dict.fromkeys(labels):
            rows = torch.tensor([i for i, other in enumerate(labels) if other == label])
            own = table.get(label)
            short = own is None or own.numel() < self.minimum
            used = table[_POOLED] if own is None or short else own
            p[rows] = conformal_p(used, scores[rows].float(), two_sided=name in self.two_sided)
            n[rows], fallback[rows] = used.numel(), short
        return PValues(p, labels, fallback, n)

    def thresholds(self, name: str, alpha: float, n_test: int | None = None) -> list[Threshold]:
        """Alarm threshold of each group large enough, and of the pooled set, each with its realised false alarms.

        One-sided: for a two-sided score it bounds the upper tail at alpha / 2.
        """
        level = alpha / 2 if name in self.two_sided else alpha
        return [
            Threshold(group, threshold(values, level), false_alarm_interval(alpha, values.numel(), n_test))
            for group, values in self._of(name).items()
            if group == _POOLED or values.numel() >= self.minimum
        ]

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors; names and groups are in the keys."""
        out = {f"scores|{name}|{group}": values for name, t in self.scores.items() for group, values in t.items()}
        sides = [int(name in self.two_sided) for name in sorted(self.scores)]
        out |= {f"order|{name}": places for name, places in self.order.items()}
        return out | {
            "edges": self.groups.edges,
            "minimum": torch.tensor([self.minimum]),
            "two_sided": torch.tensor(sides, dtype=torch.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Calibration":
        """The calibration that `state` was taken from. Errors: `CorruptArtifact`."""
        try:
            table: dict[str, dict[str, Tensor]] = {}
            for key, values in state.items():
                if key.startswith("scores|"):
                    _, name, group = key.split("|", 2)
                    table.setdefault(name, {})[group] = values
            order = {key.partition("|")[2]: v for key, v in state.items() if key.startswith("order|")}
            sides = [*zip(sorted(table), state["two_sided"].tolist(), strict=True)]
            groups, minimum = LengthGroups(state["edges"]), int(state["minimum"])
            sets = [v for t in table.values() for v in t.values()]
            whole = all(_POOLED in t for t in table.values()) and not any(bool((v.diff() < 0).any()) for v in sets)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CorruptArtifact(f"this is no state of a calibration: {error}; calibrate again") from error
        if not whole or any(v.ndim != 1 or not v.is_floating_point() for v in sets):
            raise BadValue("the calibration scores are not sorted, or lack the pooled set; calibrate again")
        if not all(v.numel() for v in sets):
            raise Incompatible("the calibration holds no prompt, and nothing can be judged by it; calibrate again")
        return cls(groups, table, minimum, frozenset(name for name, two in sides if two), order)


def _check_scores(name: str, scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise NonFinite(f"the score {name!r} holds NaN or infinity; finite scores are wanted; leave that prompt out")
