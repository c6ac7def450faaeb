"""`perimetry study masking`: dictionaries of masked and plain text, with controls, judged by the same evaluations."""

import datetime
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry import __version__
from perimetry.assets import ASSETS
from perimetry.errors import UsageError
from perimetry.evals.sae import AbstractEvaluation
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.evaluation_controls import OWN_SETTLE, settle_reader
from perimetry.pipeline.evaluation_parts import Keeper
from perimetry.pipeline.evaluation_subjects import Evaluated, subjects_of
from perimetry.pipeline.masking_config import MaskingStudyConfig
from perimetry.pipeline.masking_rows import Dictionary, MaskingRow, masking_rows, signs
from perimetry.pipeline.training import SourcePlan, run_sweep
from perimetry.report import keep_results
from perimetry.runtime import Runtime, fingerprint
from perimetry.storage import lock, read_json, remove_stale, write_json

__all__ = ["run_masking"]

BEGUN = "masking.json"
MADE = "made.json"
"""What an arm leaves once all its dictionaries are trained."""
SETTLE_ROWS = 256


class _Made(NamedTuple):
    """A dictionary that was trained."""

    which: Dictionary
    path: Path
    fvu: float
    l0: float
    dead: float


def run_masking(
    config: MaskingStudyConfig,
    out: Path,
    runtime: Runtime,
    *,
    command: str = "perimetry study masking",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train every arm, measure every dictionary, and return what `out/results.json` holds. Killed at any moment, the same call continues.

    Errors: `ConfigError` when `out` holds another study, `UsageError` where nothing could be judged, and those of every step.
    """
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a masking study")
        made: list[_Made] = []
        for number, arm in enumerate(config.arms, 1):
            say(
                f"1/2  arm {number} of {len(config.arms)}: {arm}, {len(config.runs())} dictionaries of {config.recipe.tokens:,} tokens"
            )
            made += _train(config, arm, out / "sae" / arm, runtime, progress=progress)
        say(f"2/2  {len(config.evaluation.suites)} evaluations of {len(made)} dictionaries")
        evaluated = subjects_of(
            [one.path for one in made], runtime, text=config.evaluation.fidelity.text, progress=progress
        )
        named = [
            e._replace(subject=e.subject._replace(name=m.which.name)) for e, m in zip(evaluated, made, strict=True)
        ]
        keeper = Keeper(out / "parts", Shelf(out / "activations"), progress, say)
        if config.settle:
            _settle(config, made, named, keeper)
        rows, refused = _measure(config, made, named, keeper)
        if not rows:
            raise UsageError(f"nothing could be judged: {'; '.join(one['why'] for one in refused)}")
        return keep_results(_results(config, made, named, rows, refused) | {"command": command}, out)


def _train(config: MaskingStudyConfig, arm: str, folder: Path, runtime: Runtime, *, progress: bool) -> list[_Made]:
    """The dictionaries of an arm; one that was trained whole is only read, and its store is not kept."""
    table = folder / MADE
    if not table.is_file():
        plan = SourcePlan(
            model=config.model,
            text=config.text,
            context=config.context,
            live=config.live,
            masking=config.masking_of(arm),
        )
        trained = run_sweep(plan, config.runs(), folder, runtime, progress=progress)
        rows = [{**one.to_json(), "path": one.path.relative_to(folder).as_posix()} for one in trained]
        write_json(table, {"rows": rows})
    shutil.rmtree(folder / "store", ignore_errors=True)
    found: list[_Made] = []
    for row, run in zip(read_json(table)["rows"], config.runs(), strict=True):
        which = Dictionary(arm, run.k, run.seed)
        found.append(_Made(which, folder / row["path"], row["fvu"], row["l0"], row["dead"]))
    return found


def _settle(config: MaskingStudyConfig, made: Sequence[_Made], evaluated: Sequence[Evaluated], keeper: Keeper) -> None:
    """Give every dictionary its target count on plain text that nothing is measured on, in place."""
    reader, place = settle_reader(config.evaluation.fidelity, SETTLE_ROWS), evaluated[0].subject.place
    held = reader.rows_once(place, keeper.shelf, progress=keeper.progress)
    acts = reader.acts_once(place, held, keeper.shelf, progress=keeper.progress)["acts"]
    for one, subject in zip(made, evaluated, strict=True):
        subject.subject.sae.settle(acts, one.which.k)


def _apart(config: MaskingStudyConfig, evaluation: AbstractEvaluation) -> AbstractEvaluation:
    """Fidelity on a source of the user's own, as it is measured: on the half on which no threshold was settled."""
    if not (config.settle and isinstance(evaluation, Fidelity) and evaluation.text not in ASSETS):
        return evaluation
    return evaluation.model_copy(update={"split": (OWN_SETTLE[1], 1.0), "split_own": True})


def _measure(
    config: MaskingStudyConfig, made: Sequence[_Made], evaluated: Sequence[Evaluated], keeper: Keeper
) -> tuple[list[MaskingRow], list[dict[str, Any]]]:
    rows: list[MaskingRow] = []
    refused: list[dict[str, Any]] = []
    for name in config.evaluation.suites:
        evaluation = _apart(config, config.evaluation.evaluation(name))
        found: dict[Dictionary, list[Units]] = {}
        for one, subject in zip(made, evaluated, strict=True):
            identity = f"{subject.digest}, settled" if config.settle else subject.digest
            measured = keeper.measure(evaluation, subject.subject, identity, f"{name} {one.which.name}")
            if measured.refused:
                refused.append({**one.which._asdict(), "evaluation": name, "why": measured.refused})
            else:
                found[one.which] = measured.units
        rows += masking_rows(evaluation, found, config.arms, config.ks, config.seeds)
    return rows, refused


def _results(
    config: MaskingStudyConfig,
    made: Sequence[_Made],
    evaluated: Sequence[Evaluated],
    rows: Sequence[MaskingRow],
    refused: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    place = evaluated[0].subject.place
    recipe = config.recipe
    about = f"{recipe.architecture}, width {recipe.width:,}, {recipe.tokens:,} tokens, {len(config.seeds)} seeds"
    return {
        "kind": "masking",
        "title": "Does masking the training text make better dictionaries?",
        "subtitle": f"{place.lm.name}, after block {place.layer}; {about}",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "saes": [
            {**m.which._asdict(), "digest": e.digest, "fvu": m.fvu, "l0": m.l0, "dead": m.dead}
            for m, e in zip(made, evaluated, strict=True)
        ],
        "evaluations": [
            {"name": e.name, "definition": e.definition, "source": e.source, "caveat": e.caveat, "reliable": e.reliable}
            for e in map(config.evaluation.evaluation, config.evaluation.suites)
        ],
        "rows": [row._asdict() for row in rows],
        "signs": signs(rows),
        "refused": list(refused),
        "configuration": config.model_dump(mode="json"),
    }
