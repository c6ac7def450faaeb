"""The shift benchmark: how well each detector tells shifted texts from clean ones, and by how much it beats the rest.

A detector's direction is fixed beforehand (higher = shifted) and never turned round afterwards. The concept score that
stands for the method is chosen on a validation suite (`choose_main`); the best one on the test suite is reported too,
labelled `post_hoc`, and so is the best baseline on the test suite, the strictest opponent.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from perimetry.config import Config
from perimetry.errors import TooFewSamples, UnknownName, UsageError
from perimetry.evals.added_value import added_value_rows
from perimetry.evals.arms import Arm, arm_row, make_arm, sides_of
from perimetry.evals.contrasts import Contrast, contrasts, dose_ladders
from perimetry.evals.doses import dose_fit
from perimetry.evals.resampling import METRICS
from perimetry.evals.rows import Kind, Row
from perimetry.evals.scores import Scorer, ScoreTable, checked
from perimetry.evals.selection import fold_rows, left_out_rows
from perimetry.measures.ranking import tpr_at_fpr
from perimetry.runtime import generator
from perimetry.suites import Suite

__all__ = ["BenchConfig", "BenchResult", "RocCurve", "bench"]

ROC_RATES = (*(round(step * 10.0**power, 5) for power in (-3, -2, -1) for step in (1, 1.5, 2, 3, 5, 7)), 1.0)
"""Evenly spread on a logarithmic axis; below one false alarm among the clean cases a curve says nothing more."""


class BenchConfig(Config):
    """How the benchmark computes."""

    baselines: tuple[str, ...] = ("nll", "mahalanobis", "tokens_per_word")
    """Baselines that the concept score is always compared with, where they were scored."""
    known: tuple[str, ...] = (
        "nll",
        "entropy",
        "mahalanobis",
        "knn",
        "recon_error",
        "tokens_per_word",
        "unigram_surprisal",
    )
    """Baselines that are taken as known when it is asked what the main score adds, where they were scored."""
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
        arm = make_arm(
            suite, contrast, table, draw, seed=seed, resamples=config.resamples, confidence=config.confidence
        )
        for name in table.scores:
            rows += _metric_rows(arm, name)
        post_hoc = _best(arm, "concept")
        rows += _difference_rows(arm, main, "main", config.baselines)
        rows += _difference_rows(arm, post_hoc, "post_hoc", config.baselines)
        rows += fold_rows(arm, main)
        rows += added_value_rows(arm, main, config.known)
        shown = [main, post_hoc, *(b for b in config.baselines if b in table.scores)]
        roc += [_roc(arm, name) for name in dict.fromkeys(shown)] if contrast.negatives == "all" else []
    rows += _dose_rows(suite, table, draw, seed, config)
    # A generator of its own: what was measured before this was added keeps its resamples.
    rows += left_out_rows(
        suite,
        table,
        _large_enough(suite, config.minimum_pairs),
        generator(config.bootstrap_seed + 1),
        seed=seed,
        resamples=config.resamples,
        confidence=config.confidence,
    )
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


def _metric_rows(arm: Arm, name: str) -> list[Row]:
    sides, kind = sides_of(arm, name), arm.table.kinds[name]
    return [
        arm_row(arm, name, kind, metric, arm.areas[name], arm.draws[name])
        if metric == "auroc"
        else arm_row(arm, name, kind, metric, how.value(*sides), how.draws(*sides, arm.weights))
        for metric, how in METRICS.items()
    ]


def _best(arm: Arm, kind: Kind) -> str:
    names = [name for name in arm.table.scores if arm.table.kinds[name] == kind]
    return min(names, key=lambda name: (-arm.areas[name], name))


def _difference_rows(arm: Arm, name: str, selection: str, baselines: Sequence[str]) -> list[Row]:
    opponents = [(baseline, False) for baseline in baselines if baseline in arm.table.scores]
    if any(kind == "baseline" for kind in arm.table.kinds.values()):
        opponents.append((_best(arm, "baseline"), True))
    return [
        arm_row(
            arm,
            name,
            arm.table.kinds[name],
            "auroc_difference",
            arm.areas[name] - arm.areas[other],
            arm.draws[name] - arm.draws[other],
            against=other,
            best_baseline=best,
            selection=selection,
        )
        for other, best in opponents
    ]


def _roc(arm: Arm, name: str) -> RocCurve:
    sides = sides_of(arm, name)
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
