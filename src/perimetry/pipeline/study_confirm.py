"""The one look at the test suites: the chosen score against the chosen baseline, for every seed."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry import __version__
from perimetry.errors import UsageError
from perimetry.evals.arms import Arm, arm_row
from perimetry.evals.rows import Row
from perimetry.evals.seeds import over_seeds
from perimetry.measures.stats import percentile_interval
from perimetry.pipeline.study_choice import Choice, Score
from perimetry.pipeline.study_measure import CONFIDENCE, OVER_DOSES, StudyRow, Table, arms_of, score_suites
from perimetry.pipeline.study_meters import Bench, meters_of
from perimetry.pipeline.study_saes import Quality, StudySAE, cells_of, quality_of
from perimetry.storage import read_json, write_json
from perimetry.suites import Suite

__all__ = ["CONFIRMATION", "confirm", "readers_of"]

CONFIRMATION = "confirmation.json"
AUROC, DIFFERENCE = "auroc", "auroc_difference"


class _Side(NamedTuple):
    """One of the two scores under one seed, at one dose or over all doses."""

    arm: Arm
    """Which cases; any one of the doses where they are averaged."""
    dose: float
    """The dose, or `OVER_DOSES`."""
    area: float
    """AUROC."""
    draws: Tensor
    """The same in each resample."""


def readers_of(bench: Bench, score: Score) -> list[StudySAE]:
    """The SAEs whose meters give a score: one a seed, or the first of the layer where no SAE is read."""
    if score.cell.architecture:
        return [StudySAE(score.cell, seed) for seed in bench.config.seeds]
    return [StudySAE(cells_of(bench.config, score.cell.layer)[0], bench.config.seeds[0])]


def confirm(
    bench: Bench, choice: Choice, suites: Sequence[Suite], *, force: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure what was chosen on the test suites, once: kept in `OUT/confirmation.json`.

    Later calls give what stands there. With `force` it is measured again, and the count of looks says so. Errors:
    `UsageError` when what was confirmed is not what is chosen now.
    """
    file = bench.out / CONFIRMATION
    chosen = {k: v for k, v in choice.to_json().items() if k != "compared"}
    before = read_json(file) if file.is_file() else None
    if before is not None and not force:
        if before["choice"] != chosen:
            raise UsageError(
                f"{file} confirms {_named(before['choice'])}, but {_named(chosen)} is chosen now; the test suites are looked "
                "at once; give another --out, or --force to look again, which is counted"
            )
        say(f"confirmed before, taken from {CONFIRMATION}")
        return before
    say(f"confirming {_named(chosen)} on the test suites")
    rows, together = _measure(bench, choice, suites)
    found = {
        "choice": chosen,
        "looks": 1 if before is None else before["looks"] + 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "rows": [row.to_json() for row in rows],
        "over_seeds": together,
    }
    write_json(file, found, indent=None)
    return read_json(file)


def _named(choice: dict[str, Any]) -> str:
    one = choice["chosen"]
    return f"{one['detector']} (layer {one['layer']}, {one['architecture']} {one['width']})"


def _measure(bench: Bench, choice: Choice, suites: Sequence[Suite]) -> tuple[list[StudyRow], list[dict[str, Any]]]:
    """Rows of both scores and of their difference for each seed, and the same over the seeds."""
    config = bench.config
    readers = {"concept": readers_of(bench, choice.concept), "baseline": readers_of(bench, choice.baseline)}
    layers = dict.fromkeys(sae.cell.layer for saes in readers.values() for sae in saes)
    tables: dict[StudySAE, list[Table]] = {}
    for layer in layers:
        saes = list(dict.fromkeys(s for those in readers.values() for s in those if s.cell.layer == layer))
        meters = meters_of(bench, saes)
        scored = score_suites(meters, suites, config.batch_tokens, progress=bench.progress)
        tables |= dict(zip(saes, scored, strict=True))
    qualities = {sae: quality_of(bench.out, sae) for sae in tables}
    rows: list[StudyRow] = []
    together: list[dict[str, Any]] = []
    for number in range(len(suites)):

        def sides(score: Score, saes: Sequence[StudySAE], number: int = number) -> list[list[_Side]]:
            return [_sides(tables[sae][number], score.detector, sae.seed, config.resamples) for sae in saes]

        ours = sides(choice.concept, readers["concept"])
        theirs = sides(choice.baseline, readers["baseline"])
        theirs = theirs if len(theirs) == len(ours) else theirs * len(ours)
        for own, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
            more = _rows(qualities, choice, own, other)
            rows += more
            together += _over(own, other, more)
    return rows, together


def _sides(table: Table, name: str, seed: int, resamples: int) -> list[_Side]:
    """One score at each dose of a suite, and averaged over them."""
    arms = arms_of(table, [name], seed, resamples)
    found = [_Side(arm, arm.contrast.dose, arm.areas[name], arm.draws[name]) for arm in arms]
    area = sum(side.area for side in found) / len(found)
    draws = torch.stack([side.draws for side in found]).mean(0)
    whole = arms[0]._replace(contrast=_all(arms))
    return [*found, _Side(whole, OVER_DOSES, area, draws)]


def _all(arms: Sequence[Arm]) -> Any:
    """The cases of all doses, for counts."""
    shifted = tuple(i for arm in arms for i in arm.contrast.shifted)
    return arms[0].contrast._replace(dose=OVER_DOSES, shifted=shifted)


def _rows(
    qualities: Mapping[StudySAE, Quality], choice: Choice, ours: Sequence[_Side], theirs: Sequence[_Side]
) -> list[StudyRow]:
    """Of each seed both AUROCs and their paired difference; a baseline that reads no SAE is told once."""
    concept, baseline = choice.concept, choice.baseline
    rows: list[StudyRow] = []
    for i, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        reads = qualities[StudySAE(concept.cell, own.arm.seed)]
        row = arm_row(own.arm, concept.detector, "concept", AUROC, own.area, own.draws, selection="main")
        rows.append(StudyRow("test", concept.cell, row, reads.fvu, reads.l0))
        if baseline.cell.architecture or not i:
            row = arm_row(other.arm, baseline.detector, "baseline", AUROC, other.area, other.draws)
            read = qualities[StudySAE(baseline.cell, other.arm.seed)] if baseline.cell.architecture else None
            rows.append(StudyRow("test", baseline.cell, row, read and read.fvu, read and read.l0))
        difference = (own.area - other.area, own.draws - other.draws)
        told = {"against": baseline.detector, "selection": "main"}
        row = arm_row(own.arm, concept.detector, "concept", DIFFERENCE, *difference, **told)
        rows.append(StudyRow("test", concept.cell, row, reads.fvu, reads.l0))
    return rows


def _over(ours: Sequence[_Side], theirs: Sequence[_Side], rows: Sequence[StudyRow]) -> list[dict[str, Any]]:
    """Mean over the seeds of the chosen score and of its difference, with the spread of the seeds and an interval.

    The interval is by pair, the passages drawn together for all seeds; it does not say how far other seeds would differ.
    """
    measured: list[Row] = [row.measured for row in rows if row.measured.kind == "concept"]
    own, other = (torch.stack([side.draws for side in sides]).mean(0) for sides in (ours, theirs))
    draws = {AUROC: own, DIFFERENCE: own - other}
    found: list[dict[str, Any]] = []
    for seed_row in over_seeds(measured):
        pairs = ours[0].arm.weights.pairs
        box = percentile_interval(seed_row.mean, draws[seed_row.metric], pairs, "bootstrap by pair", CONFIDENCE)
        found.append({**seed_row.to_json(), "low": box.low, "high": box.high, "n_pairs": pairs, "method": box.method})
    return found
