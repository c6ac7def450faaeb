"""What detectors say of the cases of a suite, and the choice of one of them on a validation suite."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import NonFinite, UsageError
from perimetry.evals.contrasts import contrasts
from perimetry.evals.rows import Kind
from perimetry.measures.ranking import auroc
from perimetry.suites import Case, Suite

__all__ = ["Choice", "ScoreTable", "Scorer", "checked", "choose_main"]


class ScoreTable(NamedTuple):
    """What detectors say of some cases."""

    scores: Mapping[str, Float[Tensor, " case"]]
    """Detector with its pooling -> one score a case, in order; higher = further from clean text."""
    kinds: Mapping[str, Kind]
    """Detector with its pooling -> whether it reads concepts."""


Scorer = Callable[[Sequence[Case]], ScoreTable]


class Choice(NamedTuple):
    """The concept score chosen on a validation suite."""

    detector: str
    """Its name with its pooling."""
    mean_auroc: float
    """Its AUROC, averaged over the contrasts of the validation suite."""
    others: dict[str, float]
    """The same of every concept score."""


def choose_main(score: Scorer, suite: Suite) -> Choice:
    """The concept score with the highest AUROC, averaged over the contrasts of a validation suite.

    Never give it the suite that is reported. Errors: `UsageError` when no concept score is there.
    """
    table = checked(score(suite.cases), suite)
    arms = contrasts(suite)
    means: dict[str, float] = {}
    for name, values in table.scores.items():
        if table.kinds[name] == "concept":
            areas = [auroc(values[list(arm.clean)], values[list(arm.shifted)]) for arm in arms]
            means[name] = sum(areas) / len(areas)
    if not means:
        raise UsageError(f"no concept score among {', '.join(table.scores)}; wanted at least one to choose from")
    best = min(means, key=lambda name: (-means[name], name))
    return Choice(best, means[best], means)


def checked(table: ScoreTable, suite: Suite) -> ScoreTable:
    """The scores in double precision, once they are whole and finite."""
    if not table.scores:
        raise UsageError("no detector was scored; wanted at least one")
    for name, values in table.scores.items():
        if name not in table.kinds:
            raise UsageError(f"detector {name!r} is neither called concept nor baseline; say which")
        if values.shape[0] != len(suite.cases):
            raise UsageError(f"detector {name!r} gave {values.shape[0]} scores for {len(suite.cases)} cases; score all")
        bad = (~torch.isfinite(values)).nonzero()
        if bad.numel():
            case = suite.cases[int(bad[0, 0])]
            raise NonFinite(f"detector {name!r} gave no finite score for case {case.id!r}; mend it or leave it out")
    return ScoreTable({name: values.double().cpu() for name, values in table.scores.items()}, table.kinds)
