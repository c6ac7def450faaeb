"""The shift benchmark: how well each detector tells shifted texts from clean ones, and by how much it beats the rest.

A detector's direction is fixed beforehand (higher = shifted) and never turned round afterwards. The concept score that
stands for the method is chosen on a validation suite (`choose_main`); the best one on the test suite is reported too,
labelled `post_hoc`, and so is the best baseline on the test suite, the strictest opponent.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.config import Config
from perimetry.errors import TooFewSamples, UnknownName, UsageError
from perimetry.evals.contrasts import Contrast, contrasts, dose_ladders
from perimetry.evals.doses import dose_fit
from perimetry.evals.resampling import METRICS, PairWeights, pair_weights
from perimetry.evals.rows import Kind, Row
from perimetry.evals.scores import Scorer, ScoreTable, checked
from perimetry.measures.ranking import tpr_at_fpr
from perimetry.measures.stats import percentile_interval
from perimetry.runtime import generator
from perimetry.suites import Suite

__all__ = ["BenchConfig", "BenchResult", "RocCurve", "bench"]

ROC_RATES = tuple(i / 200 for i in range(21))


class BenchConfig(Config):
    """How the benchmark computes."""

    baselines: tuple[str, ...] = ("nll", "mahalanobis", "tokens_per_word")
    """Baselines that the concept score is always compared with, where they were scored."""
    resamples: int = 1000
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Confidence of every interval."""
    minimum_pairs: int = 8
    """A kind of shift with fewer pairs is counted among `all` only: so few give no honest interval."""
    bootstrap_seed: int = 0
    """Seed of the resamples."""


class RocCurve(NamedTuple):
    """Share caught at low false-alarm rates."""

    suite: str
    """Name of the suite."""
    family: str
    """Kind of shift."""
    dose: float
    """Strength of the shift."""
    detector: str
    """Detector with its pooling."""
    kind: Kind
    """Of the detector."""
    fpr: tuple[float, ...]
    """False-positive rates, rising."""
    tpr: tuple[float, ...]
    """Largest share of shifted cases caught at each."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


class BenchResult(NamedTuple):
    """All measurements on one suite under one SAE seed."""

    rows: list[Row]
    """Flat rows."""
    roc: list[RocCurve]
    """Curves of the main score, the post-hoc best one and the named baselines."""
    matching: dict[str, Any]
    """How the suite matched its negatives."""


class _Arm(NamedTuple):
    """One contrast under way."""

    suite: str
    contrast: Contrast
    weights: PairWeights
    table: ScoreTable
    areas: dict[str, float]
    draws: dict[str, Tensor]
    seed: int
    confidence: float


def bench(score: Scorer, suite: Suite, *, main: str, seed: int = 0, config: BenchConfig | None = None) -> BenchResult:
    """Every measurement on `suite` for every detector that `score` gives.

    `main`: the concept score chosen beforehand, see `choose_main`; `seed`: that of the SAE, written into each row.
    Errors: `UnknownName` when `main` was not scored, `NonFinite`, `UsageError`, `TooFewSamples`.
    """
    config = config or BenchConfig()
    table = checked(score(suite.cases), suite)
    if main not in table.scores:
        raise UnknownName("detector", main, table.scores)
    if table.kinds[main] != "concept":
        raise UsageError(f"main score {main!r} is a baseline; wanted a concept score, chosen on a validation suite")
    rows: list[Row] = []
    roc: list[RocCurve] = []
    draw = generator(config.bootstrap_seed)
    for contrast in _large_enough(suite, config.minimum_pairs):
        arm = _arm(suite, contrast, table, draw, seed, config)
        for name in table.scores:
            rows += _metric_rows(arm, name)
        post_hoc = _best(arm, "concept")
        rows += _difference_rows(arm, main, "main", config.baselines)
        rows += _difference_rows(arm, post_hoc, "post_hoc", config.baselines)
        shown = [main, post_hoc, *(b for b in config.baselines if b in table.scores)]
        roc += [_roc(arm, name) for name in dict.fromkeys(shown)] if contrast.negatives == "all" else []
    rows += _dose_rows(suite, table, draw, seed, config)
    return BenchResult(rows, roc, suite.matching)


def _large_enough(suite: Suite, minimum: int) -> list[Contrast]:
    every = contrasts(suite)
    found = [contrast for contrast in every if len({suite.cases[i].pair for i in contrast.clean}) >= minimum]
    if not found:
        raise TooFewSamples(
            f"no contrast of suite {suite.name!r} has {minimum} pairs, which an interval needs; give more texts, and "
            "the same 'pair' to each shifted text and its clean partner"
        )
    return found


def _arm(
    suite: Suite, contrast: Contrast, table: ScoreTable, draw: torch.Generator, seed: int, config: BenchConfig
) -> _Arm:
    clean = [suite.cases[i].pair for i in contrast.clean]
    shifted = [suite.cases[i].pair for i in contrast.shifted]
    weights = pair_weights(clean, shifted, draw, config.resamples)
    areas: dict[str, float] = {}
    draws: dict[str, Tensor] = {}
    for name, values in table.scores.items():
        sides = values[list(contrast.clean)], values[list(contrast.shifted)]
        areas[name], draws[name] = METRICS["auroc"].value(*sides), METRICS["auroc"].draws(*sides, weights)
    return _Arm(suite.name, contrast, weights, table, areas, draws, seed, config.confidence)


def _row(arm: _Arm, detector: str, metric: str, estimate: float, draws: Tensor, **chosen: Any) -> Row:
    box = percentile_interval(estimate, draws, arm.weights.pairs, "bootstrap by pair", arm.confidence)
    contrast = arm.contrast
    return Row(
        suite=arm.suite,
        family=contrast.family,
        dose=contrast.dose,
        negatives=contrast.negatives,
        detector=detector,
        kind=arm.table.kinds[detector],
        metric=metric,
        against=chosen.get("against", ""),
        best_baseline=chosen.get("best_baseline", False),
        selection=chosen.get("selection", ""),
        estimate=box.estimate,
        low=box.low,
        high=box.high,
        n_shifted=len(contrast.shifted),
        n_clean=len(contrast.clean),
        n_pairs=box.n,
        seed=arm.seed,
        method=box.method,
    )


def _metric_rows(arm: _Arm, name: str) -> list[Row]:
    values = arm.table.scores[name]
    sides = values[list(arm.contrast.clean)], values[list(arm.contrast.shifted)]
    return [
        _row(arm, name, metric, arm.areas[name], arm.draws[name])
        if metric == "auroc"
        else _row(arm, name, metric, how.value(*sides), how.draws(*sides, arm.weights))
        for metric, how in METRICS.items()
    ]


def _best(arm: _Arm, kind: Kind) -> str:
    names = [name for name in arm.table.scores if arm.table.kinds[name] == kind]
    return min(names, key=lambda name: (-arm.areas[name], name))


def _difference_rows(arm: _Arm, name: str, selection: str, baselines: Sequence[str]) -> list[Row]:
    opponents = [(baseline, False) for baseline in baselines if baseline in arm.table.scores]
    if any(kind == "baseline" for kind in arm.table.kinds.values()):
        opponents.append((_best(arm, "baseline"), True))
    return [
        _row(
            arm,
            name,
            "auroc_difference",
            arm.areas[name] - arm.areas[other],
            arm.draws[name] - arm.draws[other],
            against=other,
            best_baseline=best,
            selection=selection,
        )
        for other, best in opponents
    ]


def _roc(arm: _Arm, name: str) -> RocCurve:
    values = arm.table.scores[name]
    sides = values[list(arm.contrast.clean)], values[list(arm.contrast.shifted)]
    caught = tuple(tpr_at_fpr(*sides, rate) for rate in ROC_RATES)
    contrast = arm.contrast
    return RocCurve(arm.suite, contrast.family, contrast.dose, name, arm.table.kinds[name], ROC_RATES, caught)


def _dose_rows(suite: Suite, table: ScoreTable, draw: torch.Generator, seed: int, config: BenchConfig) -> list[Row]:
    rows: list[Row] = []
    for ladder in dose_ladders(suite):
        index = torch.tensor(ladder.cases)
        state = draw.get_state()
        for name, values in table.scores.items():
            draw.set_state(state)
            fit = dose_fit(values[index], draw, resamples=config.resamples, confidence=config.confidence)
            for metric, box in (("spearman_dose", fit.spearman), ("rising_steps", fit.rising)):
                rows.append(
                    Row(
                        suite=suite.name,
                        family=ladder.family,
                        dose=0.0,
                        negatives="all",
                        detector=name,
                        kind=table.kinds[name],
                        metric=metric,
                        against="",
                        best_baseline=False,
                        selection="",
                        estimate=box.estimate,
                        low=box.low,
                        high=box.high,
                        n_shifted=index.numel() - index.shape[0],
                        n_clean=index.shape[0],
                        n_pairs=index.shape[0],
                        seed=seed,
                        method=box.method,
                    )
                )
    return rows
