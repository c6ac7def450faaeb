"""`perimetry eval`: every evaluation of every dictionary, beside its controls, several dictionaries compared unit by unit."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry import __version__
from perimetry.errors import PerimetryError, UsageError
from perimetry.evals.sae import AbstractEvaluation, Subject
from perimetry.evals.sae.rows import EvalRow, paired_rows, rows_of
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.stability import Stability
from perimetry.evals.sae.units import Units
from perimetry.pipeline.evaluation_config import EvaluationConfig
from perimetry.pipeline.evaluation_controls import ControlMaker
from perimetry.pipeline.evaluation_parts import Keeper, Measured, is_refusal
from perimetry.pipeline.evaluation_subjects import Evaluated, subjects_of
from perimetry.report import keep_results
from perimetry.runtime import Runtime, fingerprint
from perimetry.sae.formats.hashing import tensor_hash
from perimetry.storage import lock, remove_stale, write_json

__all__ = ["run_evaluation"]

OWN_CONTROLS = ("ground_truth", "stability")
"""Evaluations that carry what they are held against: probes that know the truth, and random directions."""


class _Refused(NamedTuple):
    """What could not be judged."""

    sae: str
    control: str
    evaluation: str
    why: str


class _Found(NamedTuple):
    """All that was measured."""

    rows: list[EvalRow]
    refused: list[_Refused]


class _Control(NamedTuple):
    """A control of one dictionary."""

    kind: str
    subject: Subject
    identity: str


def run_evaluation(
    paths: Sequence[Path],
    config: EvaluationConfig,
    out: Path,
    runtime: Runtime,
    *,
    model: str | None = None,
    command: str = "perimetry eval",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate dictionaries to `out` and return what `out/results.json` holds. Killed at any moment, the same call continues.

    What an evaluation cannot judge is told in the results, with its reason. Errors: `UsageError` without a dictionary or where
    nothing could be judged, those of `subjects_of`.
    """
    if not paths:
        raise UsageError("no dictionary was given; wanted the folder of at least one, as `perimetry train` writes it")
    with lock(out):
        remove_stale(out)
        say(f"1/3  {len(paths)} dictionaries and their model")
        evaluated = subjects_of(paths, runtime, model=model, text=config.fidelity.text, progress=progress)
        keeper = Keeper(out / "parts", Shelf(out / "activations"), progress, say)
        say(f"2/3  controls: {', '.join(config.controls) or 'none'}")
        refused: list[_Refused] = []
        makers = ControlMaker(config, out / "controls", keeper.shelf)
        controls = {one.subject.name: _controls(one, config, makers, keeper, refused) for one in evaluated}
        makers.clear()
        say(f"3/3  {len(config.suites)} evaluations")
        found = _Found([], refused)
        for name in config.suites:
            _evaluate(config.evaluation(name), evaluated, controls, keeper, found)
        if not found.rows:
            told = "; ".join(f"{one.evaluation}: {one.why}" for one in found.refused) or "no evaluation applies"
            raise UsageError(f"nothing could be judged: {told}")
        diffs = _diffs(config, evaluated, keeper, out) if "stability" in config.suites else []
        return keep_results(_results(config, evaluated, found, diffs) | {"command": command}, out)


def _results(
    config: EvaluationConfig, evaluated: Sequence[Evaluated], found: _Found, diffs: list[dict[str, Any]]
) -> dict[str, Any]:
    used = [config.evaluation(name) for name in config.suites]
    places = list(dict.fromkeys(f"{e.subject.place.lm.name}, after block {e.subject.place.layer}" for e in evaluated))
    return {
        "kind": "evaluation",
        "title": "What the dictionaries are worth" if len(evaluated) > 1 else "What the dictionary is worth",
        "subtitle": "; ".join(places),
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "saes": [one.to_json() for one in evaluated],
        "evaluations": [_about(one) for one in used],
        "rows": [row.to_json() for row in found.rows],
        "refused": [one._asdict() for one in found.refused],
        "feature_diffs": diffs,
        "configuration": config.model_dump(mode="json"),
    }


def _about(evaluation: AbstractEvaluation) -> dict[str, Any]:
    return {
        "name": evaluation.name,
        "definition": evaluation.definition,
        "source": evaluation.source,
        "caveat": evaluation.caveat,
        "reliable": evaluation.reliable,
        "metrics": {name: metric.text for name, metric in evaluation.metrics.items()},
    }


def _controls(
    one: Evaluated, config: EvaluationConfig, makers: ControlMaker, keeper: Keeper, refused: list[_Refused]
) -> list[_Control]:
    """The controls of a dictionary, made now; one that it cannot have is told as refused."""
    if not any(name not in OWN_CONTROLS for name in config.suites):
        return []
    found: list[_Control] = []
    for kind in config.controls:
        keeper.say(f"     {one.subject.name}: {kind}")
        try:
            made = makers.control(kind, one, progress=keeper.progress)
        except PerimetryError as error:
            if not is_refusal(error):
                raise
            refused.append(_Refused(one.subject.name, kind, "", f"{type(error).__name__}: {error}"))
            continue
        found.append(_Control(kind, made, f"{kind} {tensor_hash(made.sae)}"))
    return found


def _evaluate(
    evaluation: AbstractEvaluation,
    evaluated: Sequence[Evaluated],
    controls: Mapping[str, Sequence[_Control]],
    keeper: Keeper,
    found: _Found,
) -> None:
    """The rows of one evaluation: numbers, margins over controls, differences to the first dictionary."""
    first: tuple[str, list[Units]] | None = None
    for one in evaluated:
        subject = one.subject
        measured = keeper.measure(evaluation, subject, one.digest, f"{evaluation.name} {subject.name}")
        if not _taken(evaluation, subject, measured, "", found):
            continue
        for control in [] if evaluation.name in OWN_CONTROLS else controls[subject.name]:
            what = f"{evaluation.name} {subject.name} {control.kind}"
            beside = keeper.measure(evaluation, control.subject, control.identity, what)
            if _taken(evaluation, control.subject, beside, control.kind, found):
                found.rows.extend(paired_rows(evaluation, subject, measured.units, control.kind, beside.units))
        if first is None:
            first = (subject.name, measured.units)
        elif evaluation.name != Stability.name:
            found.rows.extend(paired_rows(evaluation, subject, measured.units, *first))
    if isinstance(evaluation, Stability):
        _compare(evaluation, evaluated, keeper, found)


def _taken(evaluation: AbstractEvaluation, subject: Subject, measured: Measured, control: str, found: _Found) -> bool:
    if measured.refused:
        found.refused.append(_Refused(subject.name, control, evaluation.name, measured.refused))
        return False
    found.rows.extend(rows_of(evaluation, subject, measured.units, control))
    return True


def _compare(stability: Stability, evaluated: Sequence[Evaluated], keeper: Keeper, found: _Found) -> None:
    """Every other dictionary against the first: the case names it."""
    if not evaluated:
        return
    first = evaluated[0]
    for other in evaluated[1:]:
        names = first.subject.name, other.subject.name
        what = f"{stability.name} {names[0]} and {names[1]}"
        measured = keeper.compare(stability, first.subject, other.subject, (first.digest, other.digest), what)
        units = [u._replace(cell=u.cell._replace(case=f"{names[1]} {u.cell.case}".strip())) for u in measured.units]
        _taken(stability, first.subject, Measured(units, measured.refused), "", found)


def _diffs(config: EvaluationConfig, evaluated: Sequence[Evaluated], keeper: Keeper, out: Path) -> list[dict[str, Any]]:
    """Latents that only one of two dictionaries has, a file a pair; the results hold how many there are of each kind."""
    stability = config.evaluation(Stability.name)
    assert isinstance(stability, Stability)
    first, told = evaluated[0], []
    for other in evaluated[1:]:
        try:
            diff = stability.diff(first.subject, other.subject, keeper.shelf, progress=keeper.progress)
        except PerimetryError as error:
            if not is_refusal(error):
                raise
            continue  # said in the comparison already
        file = Path("feature-diff") / f"{len(told) + 1}.json"
        rows = [row._asdict() for row in diff.rows]
        names = {"first": first.subject.name, "second": other.subject.name}
        write_json(out / file, {**names, "same": stability.same, "rows": rows}, indent=None)
        counts = {kind: len(diff.of(kind)) for kind in ("only first", "only second", "shared", "near")}
        told.append({**names, "file": str(file), "counts": counts})
    return told
