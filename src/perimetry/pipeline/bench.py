"""Meters on named suites: one forward pass for all of them, rows with intervals, false alarms, examples, a report."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perimetry import __version__
from perimetry.assets import Document, read_texts
from perimetry.errors import NoScorableToken, PromptTooLong, TooFewSamples, UsageError
from perimetry.evals import false_alarms, over_seeds, p_histograms
from perimetry.evals.rows import Row
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_damage import choice_part
from perimetry.pipeline.bench_parts import Part, by_layer, kept, measure, score_prompts, suite_origin
from perimetry.pipeline.bench_suites import build_suites, held_out, is_dial, suite_names
from perimetry.report import keep_results
from perimetry.runtime import fingerprint
from perimetry.shift.clean import cut_passages
from perimetry.shift.evidence import Prompt
from perimetry.shift.meter import Meter
from perimetry.shift.taps import Taps
from perimetry.storage import lock, remove_stale
from perimetry.suites import Case, Suite

__all__ = ["run_bench"]

EXAMPLE_DOSE = 0.2
N_EXAMPLES = 10


def _clean_prompts(meter: Meter, clean: Sequence[Document], config: BenchConfig) -> list[Prompt]:
    """Clean test prompts of mixed lengths: as many passages as asked for, of documents that no calibration saw."""
    fitted = meter.details.get("config", {})
    found: list[Prompt] = []
    for turn in range(10):
        low, high = fitted.get("words_low", 15), fitted.get("words_high", 200)
        for name, text in cut_passages(clean, low, high, 5000 + 1000 * turn + config.seed):
            if len(found) == config.clean_prompts:
                return found
            try:
                found += meter.extractor.prepare([f"{name}~{turn}"], [text])
            except (PromptTooLong, NoScorableToken):
                continue
    if len(found) < 20:
        raise TooFewSamples(f"the held-out text gives {len(found)} clean prompts; wanted at least 20; give more of it")
    return found


def _examples(meter: Meter, suites: Sequence[Suite]) -> list[dict[str, Any]]:
    """Readings of ten shifted texts, spread over the suites and their families, twins of dials beside their originals."""
    found: list[dict[str, Any]] = []

    def entry(case: Case) -> dict[str, Any]:
        reading = meter.score([case.text], ids=[case.id], detectors=["main"])[0]
        return reading.to_json(tokens=True, concepts=True)

    for i, suite in enumerate(suites):
        clean = {c.pair: c for c in suite.cases if not c.shifted}
        share = -(-(N_EXAMPLES - len(found)) // (len(suites) - i))
        for case in _in_turn(suite)[: max(0, share)]:
            twin = entry(clean[case.pair]) if is_dial(suite) and case.pair in clean else None
            found.append({"title": _title(suite, case), "clean": twin, "shifted": entry(case)})
    return found


def _in_turn(suite: Suite) -> list[Case]:
    """Shifted cases at the dose nearest to 20 %, one of each family in turn."""
    doses = {case.dose for case in suite.cases if case.shifted}
    dose = min(doses, key=lambda d: (abs(d - EXAMPLE_DOSE), d))
    families: dict[str, int] = {}
    order: list[tuple[int, int, Case]] = []
    for place, case in enumerate(suite.cases):
        if case.shifted and case.dose == dose:
            turn = families[case.family] = families.get(case.family, 0) + 1
            order.append((turn, place, case))
    return [case for _, _, case in sorted(order, key=lambda entry: entry[:2])]


def _title(suite: Suite, case: Case) -> str:
    name = suite.name if case.family == suite.name else f"{suite.name}: {case.family}"
    if is_dial(suite):
        return f"{name}, dose {100 * case.dose:g} %"
    return f"{name} (novel, harmless)" if case.family in suite.benign else name


def _parts(
    meters: Sequence[Meter],
    suites: Sequence[Suite],
    config: BenchConfig,
    out: Path,
    progress: bool,
    say: Callable[[str], None],
) -> list[Part]:
    """The measurements on each suite, from `out/suites` where they were made before from the same things."""
    found: list[Part] = []
    for suite in suites:

        def make(suite: Suite = suite) -> dict[str, Any]:
            say(f"measuring suite {suite.name}: {len(suite.cases)} texts, {len(meters)} meter(s)")
            return measure(meters, suite, config, progress=progress).to_json()

        file, origin = out / "suites" / f"{suite.name}.json", suite_origin(meters, suite, config)
        found.append(Part.from_json(kept(file, origin, config, make, what=f"suite {suite.name}", say=say)))
    return found


def _questions(
    meters: Sequence[Meter], config: BenchConfig, out: Path, progress: bool, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Accuracy on multiple choice under typing errors, kept like a suite."""
    if not config.questions:
        return []
    lm, policy = meters[0].lm, meters[0].policy
    asked = {"questions": config.questions, "doses": list(config.damage_doses), "seed": config.seed}
    origin = {"version": __version__, "model": lm.revision, "policy": policy.model_dump(mode="json"), **asked}
    origin |= {"resamples": config.resamples}

    def make() -> dict[str, Any]:
        say(f"measuring multiple choice: {config.questions} questions of each set, with and without typing errors")
        return {"damage": choice_part(lm, policy, config, read_texts, progress=progress)}

    return kept(out / "suites" / "questions#.json", origin, config, make, what="multiple choice", say=say)["damage"]


def _require_comparable(meters: Sequence[Meter]) -> None:
    """Refuse meters that cannot share one run of the model, or whose rows could not be told apart."""
    first = meters[0]
    seen: set[tuple[int, int]] = set()
    for meter in meters:
        layer, seed = meter.extractor.tap.layer, meter.info.seed or 0
        if layer == first.extractor.tap.layer and meter.policy != first.policy:
            raise UsageError(
                f"two meters read layer {layer} but count other tokens; one policy is wanted in a run; measure them one by one"
            )
        if (layer, seed) in seen:
            raise UsageError(
                f"two meters of layer {layer} have SAEs of seed {seed}; rows are told apart by layer and seed, so one meter of "
                "each is wanted; measure them one by one"
            )
        if meter.main != first.main:
            raise UsageError(
                f"the meters judge by {first.main} and {meter.main}; one main score is wanted in a run; measure them one by one"
            )
        seen.add((layer, seed))
    if len(by_layer(meters)) > 1:
        Taps([meters[own[0]].extractor for own in by_layer(meters).values()])


def run_bench(
    meters: Sequence[Meter],
    config: BenchConfig,
    out: Path,
    *,
    command: str,
    extra: dict[str, Any] | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure meters on suites and write `results.json` and `report.html` to `out`; returns the results.

    Each suite is kept in `out/suites` as soon as it is measured: killed at any moment, the same call goes on with the
    next one and ends with the same numbers. Errors: those of `build_suites` and `bench`, `TooFewSamples`, `Locked`,
    `UsageError` for meters that share layer and seed, or judge by different scores, `ModelMismatch` and `PolicyMismatch` for
    meters of several layers that do not go together.
    """
    _require_comparable(meters)
    suite_names(config)
    with lock(out / "suites"):
        remove_stale(out / "suites")
        results = _results(meters, config, out, progress=progress, say=say) | {"command": command} | (extra or {})
        return keep_results(results, out)


def _results(
    meters: Sequence[Meter], config: BenchConfig, out: Path, *, progress: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    clean = held_out(config.text, progress)
    say("building the suites")
    suites = build_suites(meters[0], config, clean, progress=progress)
    first = meters[0]
    # Before the long work: too little held-out text is better known now than in an hour.
    prompts = _clean_prompts(first, clean, config)
    parts = _parts(meters, suites, config, out, progress, say)
    questions = _questions(meters, config, out, progress, say)
    rows: list[Row] = [row for part in parts for row in part.rows]
    say("measuring false alarms on held-out clean text")
    quiet = score_prompts([first], prompts, "clean text", config.batch_tokens, progress)
    p = first.normal.calibration.p_values(first.main, quiet.tables[0][first.main], quiet.lengths[0])
    groups = ["pooled" if short else group for group, short in zip(p.group, p.fallback.tolist(), strict=True)]
    sae = f"{first.sae.architecture}, {first.sae.d_sae} latents"
    return {
        "title": "How far does an input lie outside what the model knows?",
        "subtitle": f"{first.lm.name}, after block {first.extractor.tap.layer} of {first.lm.n_layers}; {sae}",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "main": first.main,
        "validation": "fixed before this run, on validation text that no suite here contains (see LOG.md)",
        "rows": [row.to_json() for row in rows],
        "seeds": [row.to_json() for row in over_seeds(rows)]
        if len(by_layer(meters)[first.extractor.tap.layer]) > 1
        else [],
        "layers": [row for part in parts for row in part.layers],
        "matching": {suite.name: suite.matching for suite in suites},
        "benign": {suite.name: list(suite.benign) for suite in suites if suite.benign},
        "damage": [*(entry for part in parts for entry in part.damage), *questions],
        "damage_points": [entry for part in parts for entry in part.points],
        "false_alarms": [row.to_json() for row in false_alarms(p.p, groups, p.n.tolist())],
        "p_values": [row.to_json() for row in p_histograms(p.p, groups)],
        "roc": [curve.to_json() for part in parts for curve in part.roc],
        "examples": _examples(first, suites),
        "configuration": {"bench": config.model_dump(mode="json"), "meters": [m.summary() for m in meters]},
    }
