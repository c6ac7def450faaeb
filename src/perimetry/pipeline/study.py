"""`perimetry study`: layers, architectures, widths and seeds compared on validation texts, the best confirmed on test texts once."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from perimetry import __version__
from perimetry.activations.model import load_language_model
from perimetry.activations.text import documents_digest, take_split
from perimetry.assets import read_texts
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_parts import kept
from perimetry.pipeline.study_choice import Choice, Score, choose, rule_in_words, scores_of
from perimetry.pipeline.study_config import FIT_SPLIT, TEST_SPLIT, TRAIN_SPLIT, VALIDATION_SPLIT, StudyConfig
from perimetry.pipeline.study_confirm import confirm, readers_of
from perimetry.pipeline.study_measure import StudyRow, score_suites, study_suites, validation_rows
from perimetry.pipeline.study_meters import Bench, meters_of, prune
from perimetry.pipeline.study_saes import Quality, StudySAE, chunks_of, quality_of, train_layers
from perimetry.report import keep_results
from perimetry.runtime import Runtime, fingerprint
from perimetry.storage import hash_json, lock, remove_stale
from perimetry.suites import Suite

__all__ = ["run_study"]

LAYOUT = 1
BEGUN = "study.json"


def run_study(
    config: StudyConfig,
    out: Path,
    runtime: Runtime,
    *,
    command: str = "perimetry study",
    force: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the study to `out` and return what `out/results.json` holds. Killed at any moment, the same call continues.

    `force` confirms again on the test suites, which is counted. Errors: `ConfigError` when `out` holds another study,
    `UsageError` when another choice was confirmed there, and those of every step.
    """
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a study")
        results = _run(config, out, runtime, force=force, progress=progress, say=say) | {"command": command}
        return keep_results(results, out)


def _run(
    config: StudyConfig, out: Path, runtime: Runtime, *, force: bool, progress: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    say(f"1/4  {config.model} and {config.text}: fetch and prepare (first time only)")
    lm = load_language_model(config.model, runtime, progress=progress)
    documents = list(read_texts(config.text, progress=progress))
    # Before the long work: too little text is better known now than in an hour.
    suites = study_suites(config, lm, take_split(documents, *VALIDATION_SPLIT), n=config.passages, seed=config.seed)
    unseen = take_split(documents, *TEST_SPLIT)
    tests = study_suites(config, lm, unseen, n=config.test_passages, seed=config.test_seed)
    saes = [sae for layer in config.layers for chunk in chunks_of(config, layer) for sae in chunk]
    say(f"2/4  {len(saes)} SAEs after {len(config.layers)} blocks, {config.recipe.tokens:,} tokens each")
    train_layers(config, lm, take_split(documents, *TRAIN_SPLIT), out, progress=progress)
    qualities = {sae: quality_of(out, sae) for sae in saes}
    say("3/4  what is normal, and every score of every SAE on the validation suites")
    bench = Bench(config, lm, take_split(documents, *FIT_SPLIT), out, progress)
    rows, choice, scores = _validate(bench, suites, qualities, say)
    say("4/4  what was chosen, on the test suites, once")
    confirmed = confirm(bench, choice, tests, force=force, say=say)
    if not config.keep_meters:
        prune(out, _needed(bench, choice))
    return {
        "kind": "study",
        "title": "Which layer, which dictionary, which score?",
        "subtitle": f"{lm.name}; {len(saes)} SAEs, {len(scores)} scores of layers and SAEs compared",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "main": config.meter.main,
        "rule": rule_in_words(config),
        "rows": [*(row.to_json() for row in rows), *confirmed["rows"]],
        "cells": [score.to_json() for score in scores],
        "saes": [_about(sae, quality) for sae, quality in qualities.items()],
        **choice.to_json(),
        "confirmed": {name: confirmed[name] for name in ("looks", "date", "version", "over_seeds")},
        "matching": {suite.name: suite.matching for suite in suites},
        "configuration": config.model_dump(mode="json"),
    }


def _about(sae: StudySAE, quality: Quality) -> dict[str, Any]:
    return {**sae.cell._asdict(), "seed": sae.seed, **quality._asdict()}


def _validate(
    bench: Bench, suites: Sequence[Suite], qualities: dict[StudySAE, Quality], say: Callable[[str], None]
) -> tuple[list[StudyRow], Choice, list[Score]]:
    """All rows, the choice and what it was made from; each chunk of SAEs is kept on disk as soon as it is measured."""
    config = bench.config
    fitted_on, texts = documents_digest(bench.fit_on), hash_json([[list(c) for c in suite.cases] for suite in suites])
    rows: list[StudyRow] = []
    for layer in config.layers:
        for number, saes in enumerate(chunks_of(config, layer)):
            mine = [qualities[sae] for sae in saes]

            fresh: list[str] = []

            def make(
                saes: list[StudySAE] = saes,
                mine: list[Quality] = mine,
                alone: bool = not number,
                fresh: list[str] = fresh,
            ) -> dict[str, Any]:
                say(f"     layer {saes[0].cell.layer}: fitting and measuring {len(saes)} SAEs")
                tables = score_suites(meters_of(bench, saes), suites, config.batch_tokens, progress=bench.progress)
                found = validation_rows(saes, tables, mine, config.resamples, alone=alone)
                fresh.append("measured")
                return {"rows": [row.to_json() for row in found]}

            name = f"layer-{layer:02d}" + (f"-{number}" if number else "")
            origin = _origin(bench, mine, fitted_on, texts)
            file, what = bench.out / "validation" / f"{name}.json", f"     {name}"
            part = kept(file, origin, _settings(config), make, what=what, say=say)
            rows += [StudyRow.from_json(row) for row in part["rows"]]
            # Of a part that was measured before, the leader may lie in a later one: its meters must stay.
            if fresh and not config.keep_meters:
                prune(bench.out, _needed(bench, choose(scores_of(rows, config.rule))))
    scores = scores_of(rows, config.rule)
    return rows, choose(scores), scores


def _needed(bench: Bench, choice: Choice) -> list[StudySAE]:
    """The SAEs whose meters the confirmation would need, were this the choice."""
    return [*readers_of(bench, choice.concept), *readers_of(bench, choice.baseline)]


def _origin(bench: Bench, qualities: Sequence[Quality], fitted_on: str, texts: str) -> dict[str, Any]:
    """All that the measurements of a chunk depend on, by name."""
    return {
        "layout": LAYOUT,
        "version": __version__,
        "torch": torch.__version__,
        "device": bench.lm.device.type,
        "model": bench.lm.revision,
        "saes": [quality.digest for quality in qualities],
        "fitted_on": fitted_on,
        "meter": bench.config.meter.fingerprint(),
        "texts": texts,
        "resamples": bench.config.resamples,
        "batch_tokens": bench.config.batch_tokens,
    }


def _settings(config: StudyConfig) -> BenchConfig:
    """The settings of the validation suites in the words of the bench, for the messages of what is stale."""
    return BenchConfig(
        suites=config.suites,
        text=config.text,
        passages=config.passages,
        words=config.words,
        doses=config.doses,
        seed=config.seed,
        resamples=config.resamples,
        batch_tokens=config.batch_tokens,
    )
