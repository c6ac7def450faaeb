"""`perimetry robustify`: tune a model so that its limit moves, and say by how much it did."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perimetry import __version__
from perimetry.activations.twins import TwinRows, encode_twin
from perimetry.errors import Diverged
from perimetry.evals.robustness import METRICS, NextTokens, robustness_units
from perimetry.evals.sae.units import interval
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.robustify_config import RobustifyConfig
from perimetry.pipeline.robustify_parts import (
    Texts,
    guard_rows,
    measure_model,
    read_passages,
    selection_scores,
    shift_of,
    train_twins,
)
from perimetry.report import keep_results
from perimetry.robust.adapter import Tunable
from perimetry.robust.finetune import Tuned, tune
from perimetry.robust.guard import Guard
from perimetry.robust.objectives import Objective, Place
from perimetry.robust.saved import save_tuned
from perimetry.robust.selection import choose
from perimetry.robust.texts import tokens_of
from perimetry.runtime import fingerprint
from perimetry.shift.meter import Meter
from perimetry.storage import lock, remove_stale

__all__ = ["ADAPTER", "chosen_twins", "run_robustify"]

ADAPTER = "adapter"
LAST_GOOD = "last-good"
BEGUN = "robustify.json"
SAID = ("recovered", "gap_closed", "agreement", "loss", "gap", "loss_all", "recovered_all")


def chosen_twins(
    meter: Meter, texts: Texts, config: RobustifyConfig, *, progress: bool = False
) -> tuple[list[TwinRows], dict[str, Any]]:
    """The pairs that are tuned on, and what is to be said of them. Errors: those of `choose`."""
    twins = train_twins(texts, config)
    lm, policy = meter.lm, meter.policy
    rows = [encode_twin(lm, twin, policy) for twin in twins]
    about: dict[str, Any] = {"selection": config.selection or "all"}
    if config.selection:
        scores = {} if config.selection == "random" else selection_scores(meter, twins, progress=progress)
        found = choose(config.selection, scores, [len(r.corrupted.ids) for r in rows], config.budget, config.seed)
        rows = [rows[i] for i in found.rows]
    return rows, about | {"pairs": len(rows), "tokens": tokens_of(rows)}


def run_robustify(
    meter: Meter,
    config: RobustifyConfig,
    out: Path,
    *,
    command: str = "perimetry robustify",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
    shown: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Tune the model of `meter`, write the adapter to `out/adapter`, and return what `out/results.json` holds.

    Measured before and after on held-out passages. The model carries the tuning afterwards. Killed at any moment, the same call
    goes on at the last checkpoint. Errors: `Diverged`, with the adapter of the last good checkpoint in `out/last-good`;
    `ConfigError` when `out` holds another run; those of reading texts, of `choose`, `fit_shift` and `Tunable`.
    """
    lm, policy = meter.lm, meter.policy
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a tuning")
        say("1/4  texts, and what the model makes of them")
        texts = read_passages(lm, config, progress=progress)
        before = measure_model(lm, texts, config.measured, policy, what="the untuned model", progress=progress)
        twins, about = chosen_twins(meter, texts, config, progress=progress)
        pull = shift_of(config.tune, meter.sae, meter.extractor, [t.clean for t in twins], config.shift_tokens)
        say(
            f"2/4  {config.tune.updates} updates of {config.tune.batch} pairs; {about['pairs']} pairs, {about['tokens']} corrupted tokens"
        )
        place = Place(meter.extractor.tap.layer, policy)
        tunable = Tunable(lm, config.tune, place.layer)
        guard = Guard(tunable, guard_rows(lm, texts, policy), place, config.tune.tokens)
        try:
            done = tune(tunable, Objective(place, config.tune, pull), twins, guard, out, progress=shown)
        except Diverged as error:
            save_tuned(tunable, out / LAST_GOOD, {"title": "Stopped: the tuning diverged", "stopped": str(error)})
            raise
        say("3/4  what the tuned model makes of the held-out texts")
        after = measure_model(lm, texts, config.measured, policy, what="the tuned model", progress=progress)
        results = _results(meter, config, about, done, _rows(before, after, config)) | {"command": command}
        say("4/4  the adapter and its card")
        results["adapter"] = {"path": ADAPTER, "revision": save_tuned(tunable, out / ADAPTER, _card(results))}
        return keep_results(results, out)


def _rows(
    before: Mapping[str, NextTokens], after: Mapping[str, NextTokens], config: RobustifyConfig
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    clean = ("clean_loss", "clean_rise")
    for number, one in enumerate(config.measured):
        for arm, found in (("base", before), ("tuned", after)):
            for units in robustness_units(found[one.case], before[one.case], one.case, arm):
                name = units.cell.metric
                # Clean text is the same whatever corrupts its twin.
                if (name in clean and number) or (
                    arm == "base" and name in ("recovered", "gap_closed", "recovered_all", "clean_rise")
                ):
                    continue
                box = interval(units)
                rows.append(
                    {
                        "arm": arm,
                        "seed": config.tune.seed,
                        "metric": name,
                        "case": "" if name in clean else one.case,
                        "seen": name in clean or config.seen(one),
                        **box._asdict(),
                    }
                )
    return rows


def _results(
    meter: Meter, config: RobustifyConfig, about: dict[str, Any], done: Tuned, rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "kind": "robustify",
        "title": f"{meter.lm.name}, tuned to read {', '.join(config.kinds)}",
        "subtitle": f"{done.updates} updates of {config.tune.batch} pairs at block {meter.extractor.tap.layer}",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": list(rows),
        "metrics": {name: m._asdict() for name, m in METRICS.items()},
        "data": {"text": config.text, "kinds": list(config.kinds), "doses": list(config.doses), **about},
        "meter": {"digest": meter.digest, "layer": meter.extractor.tap.layer, "sae": meter.info.digest},
        "updates": done.updates,
        "guard": done.look._asdict(),
        "configuration": config.model_dump(mode="json"),
    }


def _card(results: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter says of itself."""
    said = [
        f"{row['metric'].replace('_', ' ')}{', ' + row['case'] if row['case'] else ''}: {row['estimate']:.3f} "
        f"({row['low']:.3f} to {row['high']:.3f}, {row['n']} texts)" + ("" if row["seen"] else "; not tuned on")
        for row in results["rows"]
        if row["arm"] == "tuned" and row["metric"] in ("recovered", "gap_closed", "clean_rise", "agreement")
    ]
    kept = ("title", "command", "date", "data", "meter", "updates", "guard", "configuration", "rows", "metrics")
    return {name: results[name] for name in kept} | {"summary": said}
