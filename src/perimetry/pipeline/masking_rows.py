"""Rows and verdicts of the masking study: arms beside one another, over all seeds and in each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perimetry.errors import TooFewSamples
from perimetry.evals.sae import AbstractEvaluation
from perimetry.evals.sae.pooled import difference_over_seeds, over_seeds, pooled
from perimetry.evals.sae.units import Cell, Units
from perimetry.pipeline.masking_config import CLAIMS, PLAIN

__all__ = ["Dictionary", "MaskingRow", "masking_rows", "signs"]

MASKED = "masked"


class Dictionary(NamedTuple):
    """Which dictionary of the study."""

    arm: str
    """How its text was masked."""
    k: int
    """Target count."""
    seed: int
    """Of its weights."""

    @property
    def name(self) -> str:
        """As results call it.

        >>> Dictionary("drop-masked", 20, 1).name
        'drop-masked-k-20-seed-1'
        """
        return f"{self.arm}-k-{self.k}-seed-{self.seed}"


class MaskingRow(NamedTuple):
    """One number of an arm, or how far one arm is above another."""

    arm: str
    """What was done."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed of the dictionaries; None is all of them, unit by unit."""
    l0_target: int
    """Count that training aimed at."""
    evaluation: str
    """Name of the evaluation."""
    metric: str
    """Name of the number."""
    unit: str
    """Its unit."""
    higher: bool | None
    """Whether higher is better."""
    case: str
    """Kind of shift; empty for all together."""
    k: int
    """Latents that a probe may use."""
    measured: str
    """`sae`, or what stands beside it, such as `raw`."""
    value: float
    """The number, or the difference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    p_value: float | None
    """Of a difference, two-sided."""
    n: int
    """Independent units."""
    seeds_above: int | None
    """Of a difference over all seeds: in how many of them it is above 0."""
    seeds: int
    """Seeds that it rests on."""
    method: str
    """How the interval was made."""


Found = Mapping[Dictionary, Sequence[Units]]


def masking_rows(
    evaluation: AbstractEvaluation, found: Found, arms: Sequence[str], ks: Sequence[int], seeds: Sequence[int]
) -> list[MaskingRow]:
    """Every number of every arm and every difference to the plain arm, and of the masked arm to each control.

    What an arm, count and seed lacks because the evaluation refused is left out of all that it would be in.
    """
    rows: list[MaskingRow] = []
    pairs = [(arm, PLAIN) for arm in arms if arm != PLAIN]
    pairs += [(MASKED, arm) for arm in arms if arm not in (PLAIN, MASKED)] if MASKED in arms else []
    for k in ks:
        by_arm = {arm: _by_cell({s: found[d] for s in seeds if (d := Dictionary(arm, k, s)) in found}) for arm in arms}
        for arm in arms:
            for cell, mine in by_arm[arm].items():
                rows += _numbers(evaluation, arm, k, cell, mine)
        for one, two in pairs:
            for cell, mine in by_arm[one].items():
                rows += _differences(evaluation, (one, two), k, cell, mine, by_arm[two].get(cell, {}))
    return rows


def _by_cell(found: Mapping[int, Sequence[Units]]) -> dict[Cell, dict[int, Units]]:
    cells: dict[Cell, dict[int, Units]] = {}
    for seed, those in found.items():
        for units in those:
            cells.setdefault(units.cell, {})[seed] = units
    return cells


def _about(evaluation: AbstractEvaluation, k: int, cell: Cell) -> dict[str, Any]:
    metric = evaluation.metrics[cell.metric]
    about = {"l0_target": k, "evaluation": evaluation.name, "metric": cell.metric, "unit": metric.unit}
    return about | {"higher": metric.higher, "case": cell.case, "k": cell.k, "measured": cell.arm}


def _numbers(
    evaluation: AbstractEvaluation, arm: str, k: int, cell: Cell, mine: Mapping[int, Units]
) -> list[MaskingRow]:
    about = _about(evaluation, k, cell)
    rows: list[MaskingRow] = []
    cases: list[tuple[int | None, list[Units]]] = [(None, list(mine.values())), *((s, [u]) for s, u in mine.items())]
    for seed, several in cases:
        if not pooled(several).names:
            continue
        box = over_seeds(several)
        count = len(mine) if seed is None else 1
        given = {"value": box.estimate, "low": box.low, "high": box.high, "n": box.n, "method": box.method}
        rows.append(
            MaskingRow(arm=arm, against="", seed=seed, p_value=None, seeds_above=None, seeds=count, **about, **given)
        )
    return rows


def _differences(
    evaluation: AbstractEvaluation,
    arms: tuple[str, str],
    k: int,
    cell: Cell,
    ours: Mapping[int, Units],
    theirs: Mapping[int, Units],
) -> list[MaskingRow]:
    about = _about(evaluation, k, cell)
    shared = [seed for seed in ours if seed in theirs]
    rows: list[MaskingRow] = []
    for seed in shared:
        row = _difference(arms, seed, [ours[seed]], [theirs[seed]], about)
        rows += [row] if row else []
    if not shared:
        return rows
    whole = _difference(arms, None, [ours[s] for s in shared], [theirs[s] for s in shared], about)
    if whole is None:
        return rows
    above = sum(row.value > 0 for row in rows)
    return [whole._replace(seeds=len(shared), seeds_above=above), *rows]


def _difference(
    arms: tuple[str, str], seed: int | None, one: Sequence[Units], two: Sequence[Units], about: Mapping[str, Any]
) -> MaskingRow | None:
    try:
        gap = difference_over_seeds(one, two)
    except TooFewSamples:
        return None
    box = {
        "value": gap.estimate,
        "low": gap.low,
        "high": gap.high,
        "p_value": gap.p_value,
        "n": gap.n,
        "method": gap.method,
    }
    return MaskingRow(arm=arms[0], against=arms[1], seed=seed, seeds_above=None, seeds=1, **about, **box)


def signs(rows: Sequence[MaskingRow]) -> list[dict[str, Any]]:
    """Of each published claim, at each count and number of probe latents: was its sign seen? `seen`, `opposite` or `open`.

    Seen means that the interval of the difference, over units and seeds, lies wholly on the published side of 0.
    """
    told: list[dict[str, Any]] = []
    for claim in CLAIMS:
        for row in rows:
            own = (row.evaluation, row.metric, row.arm, row.against, row.seed, row.case, row.measured)
            if own != (claim.evaluation, claim.metric, MASKED, PLAIN, None, claim.case, "sae"):
                continue
            low, high = sorted((claim.sign * row.low, claim.sign * row.high))
            seen = "seen" if low > 0 else "opposite" if high < 0 else "open"
            about = {
                name: getattr(row, name)
                for name in ("l0_target", "k", "value", "low", "high", "n", "seeds_above", "seeds")
            }
            told.append({**claim.model_dump(), **about, "verdict": seen})
    return told
