"""From scores per token to one number per prompt: mean, top share, largest rolling mean, CUSUM.

Every pooling is normalised for length; none is a sum. A prompt's result depends on its own tokens only, in their order.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.axes import PerPrompt, PerToken
from perimetry.errors import UnknownName, UsageError

__all__ = [
    "POOLINGS",
    "Grid",
    "Reference",
    "ScoreName",
    "parse_score",
    "pool",
    "pool_filled",
    "reference_of",
    "score_names",
]

POOLINGS: Final = ("cusum", "max", "mean", "top10")
"""Names of the poolings; `mean` is the bare name of a detector."""
_SHARE: Final = 0.1
_WINDOW: Final = 8
_DRIFT: Final = 0.5


class Reference(NamedTuple):
    """Moments of a detector's scores on clean tokens, for the CUSUM; add two with `merge`."""

    tokens: float
    """Tokens."""
    total: float
    """Sum of their scores."""
    squares: float
    """Sum of their squared scores."""

    @property
    def mean(self) -> float:
        """Mean score of a clean token."""
        return self.total / self.tokens

    @property
    def deviation(self) -> float:
        """Standard deviation; at least 1e-6 of the mean's size, so that a constant score gives no division by 0."""
        variance = self.squares / self.tokens - self.mean**2
        return max(math.sqrt(max(variance, 0.0)), 1e-6 * abs(self.mean), 1e-12)

    def merge(self, other: "Reference") -> "Reference":
        """Moments over the tokens of both."""
        return Reference(self.tokens + other.tokens, self.total + other.total, self.squares + other.squares)


def reference_of(scores: PerToken) -> Reference:
    """The moments of these clean token scores.

    >>> reference_of(torch.tensor([1.0, 3.0])).deviation
    1.0
    """
    exact = scores.double()
    return Reference(float(exact.numel()), float(exact.sum()), float(exact.square().sum()))


class ScoreName(NamedTuple):
    """A name of a `scores` table, taken apart."""

    detector: str
    """Name in `DETECTORS`."""
    pooling: str
    """Name in `POOLINGS`; `mean` for a bare name."""


def parse_score(name: str, detectors: dict[str, str]) -> ScoreName:
    """Take `surprise.top10` apart. `detectors` maps each known detector to its level, `token` or `prompt`.

    Errors: `UnknownName` with the nearest name; a prompt-level detector has no pooling but the bare name.

    >>> parse_score("surprise.top10", {"surprise": "token"})
    ScoreName(detector='surprise', pooling='top10')
    """
    detector, dot, pooling = name.partition(".")
    if detector not in detectors:
        raise UnknownName("detector", detector, detectors)
    if not dot:
        return ScoreName(detector, "mean")
    if detectors[detector] == "prompt" or pooling not in POOLINGS:
        raise UnknownName("score", name, score_names({detector: detectors[detector]}))
    return ScoreName(detector, pooling)


def score_names(detectors: dict[str, str]) -> list[str]:
    """Every name that these detectors (name -> level) can have in a `scores` table.

    >>> score_names({"length": "prompt", "l0": "token"})
    ['length', 'l0', 'l0.cusum', 'l0.max', 'l0.top10']
    """
    names: list[str] = []
    for detector, level in detectors.items():
        names.append(detector)
        if level == "token":
            names += [f"{detector}.{pooling}" for pooling in POOLINGS if pooling != "mean"]
    return names


class Grid(NamedTuple):
    """How the tokens of some prompts lie side by side; the same for every detector that scores them."""

    held: Bool[Tensor, "prompt seq"]
    """Which places hold a token: the first ones of each row."""
    lengths: Int[Tensor, " prompt"]
    """Tokens of each prompt."""

    @classmethod
    def of(cls, prompt: Int[Tensor, " token"], n_prompts: int) -> "Grid":
        """From the prompt of each token, which is non-decreasing; every row occurs."""
        lengths = torch.bincount(prompt, minlength=n_prompts)
        return cls(torch.arange(int(lengths.max()) if n_prompts else 0) < lengths[:, None], lengths)

    def fill(self, scores: Float[Tensor, "score token"]) -> Float[Tensor, "score prompt seq"]:
        """Scores per token in their places, 0 elsewhere; in float64."""
        table = torch.zeros(scores.shape[0], *self.held.shape, dtype=torch.float64)
        table[:, self.held] = scores.double()
        return table


def pool(
    scores: PerToken, prompt: Int[Tensor, " token"], n_prompts: int, how: str, reference: Reference | None = None
) -> PerPrompt:
    """One number per prompt from scores per token; `prompt` is non-decreasing and every row occurs.

    * `mean`: the mean.
    * `top10`: mean of the ceil(n / 10) highest of n tokens.
    * `max`: the largest mean of eight tokens in a row; of all of them where there are fewer.
    * `cusum`: with z = (score - mean) / deviation of clean tokens and S_t = max(0, S_{t-1} + z_t - 0.5), S_0 = 0, the
      largest S_t divided by log(1 + n): the largest value of a standardised CUSUM on clean text grows like log(n)
      (Siegmund 1985), so that its length cancels.

    Errors: `UnknownName`; `UsageError` for `cusum` without a `reference`.

    >>> scores, prompt = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])
    >>> pool(scores, prompt, 2, "mean"), pool(scores, prompt, 2, "top10")
    (tensor([2., 5.]), tensor([3., 5.]))
    """
    grid = Grid.of(prompt, n_prompts)
    return pool_filled(grid.fill(scores[None]), grid, how, [reference])[0]


def pool_filled(
    table: Float[Tensor, "score prompt seq"], grid: Grid, how: str, references: Sequence[Reference | None]
) -> Float[Tensor, "score prompt"]:
    """`pool` of several scores that lie in their grid already, each with its reference. Errors: as `pool`."""
    held, lengths = grid
    if how not in POOLINGS:
        raise UnknownName("pooling", how, POOLINGS)
    if how == "mean":
        return (table.sum(2) / lengths).float()
    if how == "top10":
        return _top_share(table, held, lengths).float()
    if how == "max":
        return _largest_window(table, lengths).float()
    known = [(reference.mean, reference.deviation) for reference in references if reference is not None]
    if len(known) < table.shape[0]:
        raise UsageError("the cusum pooling needs the clean mean and deviation of the scores; give it a Reference")
    mean, deviation = torch.tensor(known, dtype=torch.float64).view(-1, 2, 1, 1).unbind(1)
    steps = ((table - mean) / deviation - _DRIFT).masked_fill(~held, 0.0)
    walk = torch.nn.functional.pad(steps.cumsum(2), (1, 0))
    # max(0, S + step) unrolled: the walk minus its running minimum.
    height = (walk - walk.cummin(2).values).amax(2)
    return (height / lengths.double().log1p()).float()


def _top_share(
    table: Float[Tensor, "score prompt seq"], held: Bool[Tensor, "prompt seq"], lengths: Int[Tensor, " prompt"]
) -> Float[Tensor, "score prompt"]:
    wanted = (lengths.double() * _SHARE).ceil().clamp_min(1)
    most = int(wanted.max()) if wanted.numel() else 0
    ranked = table.masked_fill(~held, -torch.inf).topk(most, dim=2).values
    chosen = torch.arange(most) < wanted[:, None]
    return torch.where(chosen, ranked, 0.0).sum(2) / wanted


def _largest_window(
    table: Float[Tensor, "score prompt seq"], lengths: Int[Tensor, " prompt"]
) -> Float[Tensor, "score prompt"]:
    width = lengths.clamp_max(_WINDOW)
    # Short prompts have one window, all of them; windows that would run over the end are masked.
    longer = torch.nn.functional.pad(table, (0, _WINDOW - 1))
    windows = longer.unfold(2, _WINDOW, 1).sum(3) / width[:, None]
    start = torch.arange(table.shape[2])
    return windows.masked_fill(start > (lengths - width)[:, None], -torch.inf).amax(2)
