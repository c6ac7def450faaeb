"""The choice of a study: the mean AUROC of every score of every SAE on the validation suites, and who leads."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from perimetry.errors import UsageError
from perimetry.evals.rows import Kind
from perimetry.pipeline.study_config import StudyConfig
from perimetry.pipeline.study_measure import StudyRow
from perimetry.pipeline.study_saes import Cell

__all__ = ["Choice", "Score", "choose", "rule_in_words", "scores_of"]


class Score(NamedTuple):
    """One score of one cell on the validation suites."""

    cell: Cell
    """Layer and SAE."""
    detector: str
    """Detector with its pooling."""
    kind: Kind
    """Of the detector."""
    mean: float
    """AUROC by the rule of the study, averaged over the seeds; what is chosen by."""
    least: float
    """That of the worst seed."""
    greatest: float
    """That of the best seed."""
    seeds: int
    """Number of seeds; 1 where no SAE is read."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, flat."""
        return {**self.cell._asdict(), **{k: v for k, v in self._asdict().items() if k != "cell"}}


class Choice(NamedTuple):
    """What the validation suites chose."""

    concept: Score
    """The best concept score of all cells."""
    baseline: Score
    """The best baseline of all cells."""
    concepts: int
    """Concept scores that were compared."""
    baselines: int
    """Baselines that were compared."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "chosen": self.concept.to_json(),
            "chosen_baseline": self.baseline.to_json(),
            "compared": {"concept": self.concepts, "baseline": self.baselines},
        }


def rule_in_words(config: StudyConfig) -> str:
    """The rule of choice as a sentence."""
    over = "mean" if config.rule == "mean" else "least"
    names = ", ".join(config.suites)
    return (
        f"The highest AUROC on validation suites ({names}): the mean over doses, the {over} over suites, the mean over "
        "seeds; fixed before the run. The best baseline is chosen in the same way."
    )


def scores_of(rows: Sequence[StudyRow], rule: Literal["mean", "least"]) -> list[Score]:
    """One entry a cell and score: the mean over doses, the rule over suites, the mean over seeds.

    With AUROC .6 and .8 at two doses of one suite and .9 at the one dose of another, `mean` gives .8 and `least` .7.
    """
    seen: dict[tuple[Cell, str, Kind], dict[int, dict[str, list[float]]]] = {}
    for row in rows:
        one = row.measured
        seeds = seen.setdefault((row.cell, one.detector, one.kind), {})
        seeds.setdefault(one.seed, {}).setdefault(one.suite, []).append(one.estimate)
    found: list[Score] = []
    for (cell, detector, kind), seeds in seen.items():
        by_seed = [_by_rule([sum(v) / len(v) for v in suites.values()], rule) for _, suites in sorted(seeds.items())]
        mean = sum(by_seed) / len(by_seed)
        found.append(Score(cell, detector, kind, mean, min(by_seed), max(by_seed), len(by_seed)))
    return found


def _by_rule(suites: Sequence[float], rule: Literal["mean", "least"]) -> float:
    return min(suites) if rule == "least" else sum(suites) / len(suites)


def choose(scores: Sequence[Score]) -> Choice:
    """The best concept score and the best baseline; of equals the first by layer, architecture, width and name.

    Errors: `UsageError` when one of the two kinds is missing.
    """
    sides: dict[Kind, list[Score]] = {"concept": [], "baseline": []}
    for score in scores:
        sides[score.kind].append(score)
    for kind, those in sides.items():
        if not those:
            raise UsageError(f"no {kind} among {len(scores)} scores; wanted one of each kind to choose from")
    best = {kind: min(those, key=lambda s: (-s.mean, s.cell, s.detector)) for kind, those in sides.items()}
    return Choice(best["concept"], best["baseline"], len(sides["concept"]), len(sides["baseline"]))
