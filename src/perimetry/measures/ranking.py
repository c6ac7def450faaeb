"""How well a score tells shifted prompts from clean ones: curves' areas, error rates, their intervals and differences.

Everywhere a higher score means further from clean text; ties count half (midranks) in areas, and an alarm is raised at
scores at or above a threshold. Intervals resample prompts; a pair (a clean prompt and its shifted twin) stays together.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

from perimetry.errors import NonFinite, TooFewSamples, UnknownName, UsageError
from perimetry.measures.stats import Interval, normal_quantile, percentile_interval, resample_counts

__all__ = [
    "Difference",
    "auroc",
    "auroc_interval",
    "average_precision",
    "bootstrap_ranking",
    "bootstrap_rankings",
    "compare_rankings",
    "delong_difference",
    "fpr_at_tpr",
    "tpr_at_fpr",
]

CleanScores = Float[Tensor, "detector clean"]
ShiftedScores = Float[Tensor, "detector shifted"]
WeightedMetric = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Difference(NamedTuple):
    """How much better the first of two scores is on the same prompts."""

    estimate: float
    """First minus second."""
    low: float
    """Lower end of its interval; above 0 means better beyond chance."""
    high: float
    """Upper end."""
    p_value: float
    """Two-sided, for no difference."""
    n: int
    """Independent units: pairs, or the smaller side where there are none."""
    method: str
    """How the interval was made."""


def _check(clean: Tensor, shifted: Tensor) -> None:
    if not clean.shape[-1] or not shifted.shape[-1]:
        raise TooFewSamples(
            f"a ranking needs clean and shifted scores, got {clean.shape[-1]} and {shifted.shape[-1]}; give both"
        )
    if not (bool(torch.isfinite(clean).all()) and bool(torch.isfinite(shifted).all())):
        raise NonFinite("the scores hold NaN or infinity; finite scores are wanted; leave those prompts out")


def _check_pairs(clean: Tensor, shifted: Tensor) -> None:
    if clean.shape[-1] != shifted.shape[-1]:
        raise UsageError(
            f"pairs need one shifted prompt to each clean one, got {clean.shape[-1]} and {shifted.shape[-1]}; "
            "say pairs=False, or give twins"
        )


def _wins(clean: Tensor, shifted: Tensor) -> Tensor:
    """Entry (i, j): 1 when shifted j scores above clean i, a half at a tie."""
    return (torch.sign(shifted[None, :] - clean[:, None]).float() + 1) / 2


def auroc(clean: Float[Tensor, " clean"], shifted: Float[Tensor, " shifted"]) -> float:
    """Chance that a shifted prompt scores above a clean one, ties counted half. 1 = always, 0.5 = no use.

    >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    0.875
    """
    _check(clean, shifted)
    ranked = clean.double().sort().values
    below = torch.searchsorted(ranked, shifted.double(), side="left")
    upto = torch.searchsorted(ranked, shifted.double(), side="right")
    return float((below + upto).double().mean()) / (2 * clean.numel())


class _Curve(NamedTuple):
    """Weighted false and true positives at each threshold, from the highest score down."""

    false: Float[Tensor, "resample threshold"]
    true: Float[Tensor, "resample threshold"]


def _curve(clean: Tensor, shifted: Tensor, clean_weights: Tensor, shifted_weights: Tensor) -> _Curve:
    scores, order = torch.cat([clean, shifted]).sort(descending=True, stable=True)
    n, rows = clean.numel(), clean_weights.shape[0]
    false = torch.zeros(rows, scores.numel(), dtype=torch.float64)
    true = torch.zeros_like(false)
    false[:, :n], true[:, n:] = clean_weights.double(), shifted_weights.double()
    # Only the last of a run of ties is a threshold.
    last = torch.ones_like(scores, dtype=torch.bool)
    last[:-1] = scores[1:] != scores[:-1]
    false, true = false[:, order].cumsum(1)[:, last], true[:, order].cumsum(1)[:, last]
    return _Curve(false / false[:, -1:], true / true[:, -1:])


def _auroc_weighted(clean: Tensor, shifted: Tensor, clean_weights: Tensor, shifted_weights: Tensor) -> Tensor:
    total = (clean_weights @ _wins(clean, shifted) * shifted_weights).sum(1).double()
    return total / (clean_weights.sum(1).double() * shifted_weights.sum(1).double())


def _tpr_weighted(limit: float) -> WeightedMetric:
    def metric(clean: Tensor, shifted: Tensor, clean_weights: Tensor, shifted_weights: Tensor) -> Tensor:
        curve = _curve(clean, shifted, clean_weights, shifted_weights)
        return torch.where(curve.false <= limit + 1e-12, curve.true, 0.0).amax(1)

    return metric


def _fpr_weighted(wanted: float) -> WeightedMetric:
    def metric(clean: Tensor, shifted: Tensor, clean_weights: Tensor, shifted_weights: Tensor) -> Tensor:
        curve = _curve(clean, shifted, clean_weights, shifted_weights)
        return torch.where(curve.true >= wanted - 1e-12, curve.false, 1.0).amin(1)

    return metric


def _precision_weighted(clean: Tensor, shifted: Tensor, clean_weights: Tensor, shifted_weights: Tensor) -> Tensor:
    curve = _curve(clean, shifted, clean_weights, shifted_weights)
    true, false = curve.true * shifted_weights.sum(1)[:, None], curve.false * clean_weights.sum(1)[:, None]
    precision = true / (true + false).clamp_min(1e-300)
    return (curve.true.diff(dim=1, prepend=torch.zeros_like(curve.true[:, :1])) * precision).sum(1)


def _plain(metric: WeightedMetric, clean: Tensor, shifted: Tensor) -> float:
    _check(clean, shifted)
    return float(metric(clean, shifted, torch.ones(1, clean.numel()), torch.ones(1, shifted.numel())))


def tpr_at_fpr(clean: Float[Tensor, " clean"], shifted: Float[Tensor, " shifted"], limit: float = 0.01) -> float:
    """Largest share of shifted prompts caught by a threshold whose false-alarm rate is at most `limit`. Higher = better.

    >>> tpr_at_fpr(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), 0.0)
    0.5
    """
    return _plain(_tpr_weighted(limit), clean, shifted)


def fpr_at_tpr(clean: Float[Tensor, " clean"], shifted: Float[Tensor, " shifted"], wanted: float = 0.95) -> float:
    """Smallest false-alarm rate of a threshold that catches the share `wanted` of shifted prompts. Lower = better.

    >>> fpr_at_tpr(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), 1.0)
    0.5
    """
    return _plain(_fpr_weighted(wanted), clean, shifted)


def average_precision(clean: Float[Tensor, " clean"], shifted: Float[Tensor, " shifted"]) -> float:
    """Area under precision and recall as a step function, shifted prompts being the positives. Higher = better.

    >>> round(average_precision(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])), 4)
    0.8333
    """
    return _plain(_precision_weighted, clean, shifted)


_METRICS: Final[dict[str, WeightedMetric]] = {
    "auroc": _auroc_weighted,
    "average_precision": _precision_weighted,
    "fpr95": _fpr_weighted(0.95),
    "tpr01": _tpr_weighted(0.01),
}


def _draws(
    metric: str, clean: CleanScores, shifted: ShiftedScores, draw: torch.Generator, resamples: int, pairs: bool
) -> Float[Tensor, "detector resample"]:
    _check(clean, shifted)
    if metric not in _METRICS:
        raise UnknownName("ranking metric", metric, _METRICS)
    clean_weights = resample_counts(clean.shape[1], resamples, draw)
    shifted_weights = clean_weights if pairs else resample_counts(shifted.shape[1], resamples, draw)
    if pairs:
        _check_pairs(clean, shifted)
    rows = [_METRICS[metric](c, s, clean_weights, shifted_weights) for c, s in zip(clean, shifted, strict=True)]
    return torch.stack(rows)


def _estimates(metric: str, clean: CleanScores, shifted: ShiftedScores, pairs: bool) -> tuple[list[float], str, int]:
    values = [_plain(_METRICS[metric], c, s) for c, s in zip(clean, shifted, strict=True)]
    return values, "paired bootstrap" if pairs else "bootstrap", min(clean.shape[1], shifted.shape[1])


def bootstrap_rankings(
    clean: CleanScores,
    shifted: ShiftedScores,
    draw: torch.Generator,
    *,
    metric: str = "auroc",
    pairs: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Interval]:
    """Interval of a metric (`auroc`, `average_precision`, `fpr95`, `tpr01`) for each detector, all on the same resamples.

    `pairs`: column i of both sides is one pair and is resampled as one; else the sides are resampled apart.
    """
    draws = _draws(metric, clean, shifted, draw, resamples, pairs)
    values, name, n = _estimates(metric, clean, shifted, pairs)
    return [percentile_interval(value, row, n, name, confidence) for value, row in zip(values, draws, strict=True)]


def bootstrap_ranking(
    clean: Float[Tensor, " clean"],
    shifted: Float[Tensor, " shifted"],
    draw: torch.Generator,
    *,
    metric: str = "auroc",
    pairs: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """`bootstrap_rankings` for one detector."""
    settings = {"metric": metric, "pairs": pairs, "resamples": resamples, "confidence": confidence}
    return bootstrap_rankings(clean[None], shifted[None], draw, **settings)[0]


def compare_rankings(
    clean: CleanScores,
    shifted: ShiftedScores,
    draw: torch.Generator,
    *,
    metric: str = "auroc",
    pairs: bool = True,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Difference]:
    """Metric of the first detector minus that of each other one, bootstrapped on the same prompts."""
    draws = _draws(metric, clean, shifted, draw, resamples, pairs)
    values, name, n = _estimates(metric, clean, shifted, pairs)
    out: list[Difference] = []
    for value, row in zip(values[1:], draws[1:], strict=True):
        change = draws[0] - row
        box = percentile_interval(values[0] - value, change, n, name, confidence)
        tail = min(int((change <= 0).sum()), int((change >= 0).sum()))
        out.append(Difference(*box[:3], min(1.0, 2 * (tail + 1) / (resamples + 1)), n, box.method))
    return out


def _components(clean: CleanScores, shifted: ShiftedScores) -> tuple[Tensor, Tensor, Tensor]:
    """Areas and structural components of DeLong et al. 1988, per detector: (areas, by clean prompt, by shifted one)."""
    of_clean, of_shifted = [], []
    for c, s in zip(clean.double(), shifted.double(), strict=True):
        low, high = c.sort().values, s.sort().values
        beneath = torch.searchsorted(low, s, side="left") + torch.searchsorted(low, s, side="right")
        of_shifted.append(beneath.double() / (2 * c.numel()))
        reached = torch.searchsorted(high, c, side="left") + torch.searchsorted(high, c, side="right")
        of_clean.append(1 - reached.double() / (2 * s.numel()))
    v01, v10 = torch.stack(of_clean), torch.stack(of_shifted)
    return v10.mean(1), v01, v10


def _covariance(clean: CleanScores, shifted: ShiftedScores, pairs: bool) -> tuple[Tensor, Tensor]:
    _check(clean, shifted)
    if min(clean.shape[1], shifted.shape[1]) < 2:
        raise TooFewSamples("DeLong's variance needs at least 2 clean and 2 shifted prompts; give more")
    areas, v01, v10 = _components(clean, shifted)
    if pairs:
        _check_pairs(clean, shifted)
        return areas, torch.cov(v01 + v10).reshape(areas.numel(), -1) / clean.shape[1]
    both = torch.cov(v01) / clean.shape[1] + torch.cov(v10) / shifted.shape[1]
    return areas, both.reshape(areas.numel(), -1)


def auroc_interval(
    clean: Float[Tensor, " clean"], shifted: Float[Tensor, " shifted"], *, pairs: bool, confidence: float = 0.95
) -> Interval:
    """Area with DeLong's interval (1988); with `pairs` the twins' components are added first (Obuchowski 1997)."""
    areas, covariance = _covariance(clean[None], shifted[None], pairs)
    area, half = float(areas[0]), normal_quantile(confidence) * math.sqrt(max(float(covariance[0, 0]), 0.0))
    n = min(clean.numel(), shifted.numel())
    name = f"DeLong{' by pair' if pairs else ''} {confidence * 100:g} %"
    return Interval(area, max(0.0, area - half), min(1.0, area + half), n, name)


def delong_difference(
    clean: CleanScores, shifted: ShiftedScores, *, pairs: bool, confidence: float = 0.95
) -> Difference:
    """Difference of the areas of two detectors (row 0 minus row 1) on the same prompts: DeLong's paired test."""
    if clean.shape[0] != 2:
        raise UsageError(f"DeLong's test compares two detectors, got {clean.shape[0]}; give two rows")
    areas, covariance = _covariance(clean, shifted, pairs)
    difference = float(areas[0] - areas[1])
    error = math.sqrt(max(float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]), 0.0))
    half = normal_quantile(confidence) * error
    p = float(2 * special.ndtr(-abs(difference) / error)) if error else float(difference == 0)
    n = min(clean.shape[1], shifted.shape[1])
    return Difference(difference, difference - half, difference + half, p, n, f"DeLong {confidence * 100:g} %")
