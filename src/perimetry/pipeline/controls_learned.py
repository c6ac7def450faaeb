"""Controls in which something was not learned: the dictionary, what its latents mean, the language model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perimetry.evals import BenchConfig as Measuring
from perimetry.evals import ScoreTable
from perimetry.evals.control_rows import ABOVE, NOT_ABOVE, ControlRow, control_row
from perimetry.evals.controls import CONTROL_PAIRS, control_contrast
from perimetry.evals.rows import Kind, Row
from perimetry.measures.ranking import auroc, auroc_interval
from perimetry.measures.stats import Interval
from perimetry.pipeline.bench_parts import score_prompts
from perimetry.pipeline.controls_meters import fit_documents, unlearned_model, unlearned_saes
from perimetry.pipeline.controls_parts import Bench, paired_cases, plain_rows, wanted_scores
from perimetry.shift import DETECTORS
from perimetry.shift.meter import Meter
from perimetry.suites import Suite

__all__ = ["dictionary_part", "model_part"]

DECODED = ("energy", "recon_error", "recon_relative")
"""Scores that decode: a permuted decoder leaves all others as they are."""
SURFACE = ("tokens_per_word", "unigram_surprisal", "length")
"""What can be seen of a text without a model."""


def _kind(name: str) -> Kind:
    return "baseline" if DETECTORS[name.partition(".")[0]].baseline else "concept"


def _table(scores: Mapping[str, Tensor]) -> ScoreTable:
    return ScoreTable(scores, {name: _kind(name) for name in scores})


def _differences(
    bench: Bench,
    control: str,
    tables: tuple[ScoreTable, ScoreTable],
    pairs: Sequence[tuple[str, str]],
    *,
    label: str = "",
    expected: str = ABOVE,
    suite: Suite | None = None,
) -> list[ControlRow]:
    found = control_contrast(
        *tables,
        suite or bench.suite,
        pairs,
        label=label,
        seed=bench.seed,
        config=Measuring(resamples=bench.config.resamples),
    )
    return [_judged(control, row, expected) for row in found]


def _judged(control: str, row: Row, expected: str) -> ControlRow:
    box = Interval(row.estimate, row.low, row.high, row.n_pairs, row.method)
    about = {"against": row.against, "dose": row.dose, "seed": row.seed}
    return control_row(control, row.detector, row.metric, box, expected=expected, **about)


def _areas(
    bench: Bench, control: str, scores: Mapping[str, Tensor], names: Sequence[str], label: str
) -> list[ControlRow]:
    """Plain AUROCs, which stand beside the differences."""
    rows: list[ControlRow] = []
    for dose in bench.config.doses:
        clean, twins = paired_cases(bench.suite, dose)
        for name in names:
            box = auroc_interval(scores[name][clean].double(), scores[name][twins].double(), pairs=True)
            rows.append(control_row(control, name, "auroc", box, against=label, dose=dose, seed=bench.seed))
    return rows


def _score_suite(bench: Bench, meters: Sequence[Meter], what: str) -> list[dict[str, Tensor]]:
    cases = bench.suite.cases
    prompts = meters[0].extractor.prepare([c.id for c in cases], [c.text for c in cases])
    return score_prompts(meters, prompts, what, bench.config.batch_tokens, bench.progress).tables


def dictionary_part(bench: Bench) -> dict[str, Any]:
    """What the trained dictionary is worth: against scores and meters whose dictionary learned nothing.

    Errors: those of `unlearned_saes`.
    """
    names = wanted_scores(bench.meter, bench.config)
    documents = fit_documents(bench.meter, bench.clean, bench.config, progress=bench.progress)
    made = unlearned_saes(bench.meter, documents, bench.config, progress=bench.progress)
    scored = _score_suite(bench, [bench.meter, made.trained, made.untrained, made.permuted], "twins under four SAEs")
    both = list(dict.fromkeys(name for pair in CONTROL_PAIRS for name in pair))
    kept = list(dict.fromkeys([*names, *both, *DECODED, *SURFACE]))
    own, trained, blank, permuted = ({n: t[n] for n in kept} for t in scored)
    rows = _differences(bench, "same_table", (_table(own), _table(own)), CONTROL_PAIRS)
    pairs = [(name, name) for name in names if _kind(name) == "concept"]
    tables = (_table(trained), _table(blank))
    rows += _differences(bench, "untrained_sae", tables, pairs, label="untrained SAE")
    rows += _areas(bench, "untrained_sae", trained, names, "trained SAE")
    rows += _areas(bench, "untrained_sae", blank, names, "untrained SAE")
    decoded = [(name, name) for name in DECODED]
    tables = (_table(trained), _table(permuted))
    rows += _differences(bench, "permuted_decoder", tables, decoded, label="permuted decoder")
    shown = {"own": {bench.meter.main: own[bench.meter.main]}, "trained": trained, "untrained": blank}
    plain = {who: {name: values.tolist() for name, values in table.items()} for who, table in shown.items()}
    return {"controls": plain_rows(rows), "scores": plain, "l0": list(made.l0)}


def model_part(bench: Bench, dictionaries: Mapping[str, Any]) -> dict[str, Any]:
    """What the trained language model is worth; `dictionaries` is what `dictionary_part` found on it.

    The meter on the untrained model has an untrained SAE, so it is compared with both meters on the trained one. What it
    can still see is the surface of a text: it should not beat the best of the scores that read nothing else.
    """
    names = wanted_scores(bench.meter, bench.config)
    documents = fit_documents(bench.meter, bench.clean, bench.config, progress=bench.progress)
    k = max(1, round(dictionaries["l0"][0]))
    other = unlearned_model(bench.meter, documents, bench.config, k, progress=bench.progress)
    (table,) = _score_suite(bench, [other], "twins in an untrained model")
    trained, blank = (
        {name: torch.tensor(values) for name, values in dictionaries["scores"][who].items()}
        for who in ("trained", "untrained")
    )
    there = {name: table[name] for name in trained}
    pairs = [(name, name) for name in names if _kind(name) == "concept"]
    rows = _differences(bench, "untrained_model", (_table(trained), _table(there)), pairs, label="untrained model")
    tables = (_table(blank), _table(there))
    beside = _differences(bench, "untrained_model", tables, pairs, label="untrained model, both with untrained SAEs")
    rows += [row._replace(expected="", holds=None) for row in beside]
    for dose in bench.config.doses:
        clean, twins = paired_cases(bench.suite, dose)
        areas = {name: auroc(there[name][clean], there[name][twins]) for name in SURFACE}
        best = min(areas, key=lambda name: (-areas[name], name))
        order = [i for i, c in enumerate(bench.suite.cases) if not c.shifted or c.dose == dose]
        one = _table({name: values[order] for name, values in there.items()})
        suite = bench.suite._replace(cases=tuple(bench.suite.cases[i] for i in order))
        concepts = [(name, best) for name, _ in pairs]
        label = "no model"
        rows += _differences(
            bench, "untrained_model", (one, one), concepts, label=label, expected=NOT_ABOVE, suite=suite
        )
    rows += _areas(bench, "untrained_model", there, [*names, *SURFACE], "untrained model")
    return {"controls": plain_rows(rows)}
