"""Choosing the best score without looking at the cases it is measured on: by folds of pairs, and by families left out.

The best of many scores on the very cases that it was chosen on looks better than it is, on either side of a comparison.
Here the choice is made on the pairs of the other folds, or on the other families (and other folds), and measured on what
was kept out. Scores of folds with different choices are put on one scale by the clean cases of the other folds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.evals.arms import Arm, arm_row, make_arm
from perimetry.evals.contrasts import ALL, Contrast
from perimetry.evals.resampling import METRICS
from perimetry.evals.rows import Kind, Row
from perimetry.evals.scores import ScoreTable
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator
from perimetry.suites import Suite

__all__ = [
    "FOLDS",
    "LEFT_OUT_RATE",
    "OTHER_FAMILIES",
    "OTHER_FOLDS",
    "Picked",
    "fold_rows",
    "left_out_rows",
    "pair_folds",
    "pick",
]

FOLDS = 5
LEFT_OUT_RATE = 0.05
"""False-alarm rate on the other families at which the threshold for the one left out is set."""
OTHER_FOLDS = {"concept": "best concept, other folds", "baseline": "best baseline, other folds"}
"""Names of the choices by folds, by kind."""
OTHER_FAMILIES = {"concept": "best concept, other families", "baseline": "best baseline, other families"}
"""Names of the choices by families, by kind."""
KINDS: tuple[Kind, ...] = ("concept", "baseline")


class Picked(NamedTuple):
    """A score made of the choices of all folds; 0 where a case is in no fold."""

    values: Float[Tensor, " case"]
    """Scores in standard deviations of the clean cases that the choice was made on."""
    alarms: Bool[Tensor, " case"]
    """Whether a case lies above the threshold set there."""
    choices: Counter[str]
    """Detector -> folds that chose it."""


def pair_folds(pairs: Sequence[str], folds: int = FOLDS, seed: int = 0) -> Int[Tensor, " case"]:
    """A fold for each case, the same for all cases of a pair; folds differ by at most one pair.

    >>> pair_folds(["a", "a", "b"], folds=2).unique().tolist()
    [0, 1]
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(pairs))}
    place = torch.empty(len(names), dtype=torch.int64)
    place[torch.randperm(len(names), generator=generator(seed))] = torch.arange(len(names)) % folds
    return place[torch.tensor([names[pair] for pair in pairs])]


def pick(
    scores: Mapping[str, Float[Tensor, " case"]],
    folds: Int[Tensor, " case"],
    train: Sequence[tuple[Sequence[int], Sequence[int]]],
    test: Sequence[int],
    rate: float = LEFT_OUT_RATE,
) -> Picked:
    """For each fold the score with the best mean AUROC on `train` outside the fold, applied to `test` inside it.

    `train`: clean and shifted cases of each contrast to choose on. The threshold is the lowest with at most the share
    `rate` of the clean training cases above it. A fold whose complement holds no case on a side is passed over.
    """
    first = next(iter(scores.values()))
    found = Picked(torch.zeros_like(first), torch.zeros(first.numel(), dtype=torch.bool), Counter())
    tested = torch.zeros(first.numel(), dtype=torch.bool)
    tested[list(test)] = True
    for fold in folds[list(test)].unique().tolist():
        arms = [(_outside(clean, folds, fold), _outside(shifted, folds, fold)) for clean, shifted in train]
        arms = [(clean, shifted) for clean, shifted in arms if clean.numel() and shifted.numel()]
        if not arms:
            continue
        means = {name: sum(auroc(v[c], v[s]) for c, s in arms) / len(arms) for name, v in scores.items()}
        best = min(means, key=lambda name: (-means[name], name))
        calm = scores[best][torch.cat([clean for clean, _ in arms]).unique()]
        spread = float(calm.std()) if calm.numel() > 1 else 0.0
        here = tested & (folds == fold)
        found.values[here] = (scores[best][here] - calm.mean()) / (spread or 1.0)
        allowed = int(rate * calm.numel() + 1e-9)
        found.alarms[here] = scores[best][here] > calm.sort(descending=True).values[allowed]
        found.choices[best] += 1
    return found


def _outside(cases: Sequence[int], folds: Tensor, fold: int) -> Tensor:
    members = torch.tensor(list(cases), dtype=torch.int64)
    return members[folds[members] != fold]


def _of_kind(table: ScoreTable, kind: Kind) -> dict[str, Tensor]:
    return {name: values for name, values in table.scores.items() if table.kinds[name] == kind}


def _said(choices: Counter[str]) -> str:
    return "chosen: " + ", ".join(f"{name} ({n})" for name, n in sorted(choices.items(), key=lambda c: (-c[1], c[0])))


def _area(arm: Arm, values: Tensor) -> tuple[float, Tensor]:
    sides = values[list(arm.contrast.clean)], values[list(arm.contrast.shifted)]
    return METRICS["auroc"].value(*sides), METRICS["auroc"].draws(*sides, arm.weights)


def fold_rows(arm: Arm, main: str) -> list[Row]:
    """Differences of AUROC to the best baseline, which is chosen on the other folds of the pairs.

    Two rows: the main score, and the best concept score, which is chosen in the same way. None without a baseline.
    """
    cases = [*arm.contrast.clean, *arm.contrast.shifted]
    folds = pair_folds(arm.pairs)
    train = [(arm.contrast.clean, arm.contrast.shifted)]
    picked = {kind: pick(s, folds, train, cases) for kind in KINDS if (s := _of_kind(arm.table, kind))}
    if len(picked) < len(KINDS):
        return []
    area, draws = _area(arm, picked["baseline"].values)
    best = _area(arm, picked["concept"].values)
    rivals = [
        (main, "main", (arm.areas[main], arm.draws[main]), _said(picked["baseline"].choices)),
        (OTHER_FOLDS["concept"], "out_of_fold", best, _said(picked["concept"].choices)),
    ]
    return [
        arm_row(
            arm,
            name,
            "concept",
            "auroc_difference_out_of_fold",
            own[0] - area,
            own[1] - draws,
            against=OTHER_FOLDS["baseline"],
            selection=selection,
            remark=said,
        )
        for name, selection, own, said in rivals
    ]


def left_out_rows(
    suite: Suite,
    table: ScoreTable,
    arms: Iterable[Contrast],
    draw: torch.Generator,
    *,
    seed: int,
    resamples: int,
    confidence: float,
) -> list[Row]:
    """Each family measured by the score and the threshold that the other families of its dose chose.

    Where families share their clean cases, the folds of the pairs keep these apart as well: what is measured in a fold was
    chosen outside it. `auroc_left_out`; `tpr_left_out` and `fpr_left_out` at the threshold of `LEFT_OUT_RATE`; and
    `auroc_left_out_difference`, best concept minus best baseline. Nothing for suites of one family.
    """
    rows: list[Row] = []
    folds = pair_folds([case.pair for case in suite.cases])
    groups: dict[float, list[Contrast]] = {}
    for contrast in arms:
        if contrast.family != ALL and contrast.negatives == ALL:
            groups.setdefault(contrast.dose, []).append(contrast)
    for group in groups.values():
        for own in group if len(group) > 1 else ():
            others = [(c.clean, c.shifted) for c in group if c.family != own.family]
            test = [*own.clean, *own.shifted]
            picked: dict[Kind, Picked] = {k: pick(s, folds, others, test) for k in KINDS if (s := _of_kind(table, k))}
            bare = ScoreTable({}, table.kinds)
            arm = make_arm(suite, own, bare, draw, seed=seed, resamples=resamples, confidence=confidence)
            rows += _left_out(arm, picked)
    return rows


def _left_out(arm: Arm, picked: Mapping[Kind, Picked]) -> list[Row]:
    rows: list[Row] = []
    areas: dict[Kind, tuple[float, Tensor]] = {}
    for kind, own in picked.items():
        name, remark = OTHER_FAMILIES[kind], _said(own.choices)
        areas[kind] = _area(arm, own.values)
        told = {"selection": "left_out", "remark": remark}
        rows.append(arm_row(arm, name, kind, "auroc_left_out", *areas[kind], **told))
        for metric, cases, weights in (
            ("tpr_left_out", arm.contrast.shifted, arm.weights.shifted),
            ("fpr_left_out", arm.contrast.clean, arm.weights.clean),
        ):
            flags = own.alarms[list(cases)].double()
            draws = (weights.double() @ flags) / weights.double().sum(1)
            rows.append(arm_row(arm, name, kind, metric, float(flags.mean()), draws, **told))
    if len(areas) == len(KINDS):
        (ours, own_draws), (theirs, their_draws) = areas["concept"], areas["baseline"]
        rows.append(
            arm_row(
                arm,
                OTHER_FAMILIES["concept"],
                "concept",
                "auroc_left_out_difference",
                ours - theirs,
                own_draws - their_draws,
                against=OTHER_FAMILIES["baseline"],
                selection="left_out",
            )
        )
    return rows
