"""Controls of one meter by itself: false concepts against their oracle, clean against clean, p-values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.activations.text import shuffled
from perimetry.activations.twins import Twin
from perimetry.assets import Document
from perimetry.errors import NoScorableToken, PromptTooLong, TooFewSamples
from perimetry.evals import false_alarms, p_histograms
from perimetry.evals.control_rows import ABOVE, ControlRow, control_row
from perimetry.evals.fallacious import FallaciousResult, predict_f3
from perimetry.evals.nulls import clean_halves, held_out_p_values, shuffled_labels, simulated_p_values
from perimetry.measures.stats import Interval
from perimetry.pipeline.controls_config import ControlsConfig
from perimetry.runtime import generator
from perimetry.shift.clean import cut_passages
from perimetry.shift.meter import Meter
from perimetry.suites import Suite
from perimetry.suites.passages import passages

__all__ = ["Bench", "clean_part", "false_concept_part", "p_value_part", "paired_cases", "plain_rows", "wanted_scores"]


class Bench(NamedTuple):
    """What all parts share."""

    meter: Meter
    """The meter in question."""
    config: ControlsConfig
    """How much is measured."""
    clean: Sequence[Document]
    """Held-out documents."""
    suite: Suite
    """Passages of them, with twins at the doses of the config."""
    progress: bool = False
    """Whether bars are shown."""

    @property
    def seed(self) -> int:
        """Seed of the SAE."""
        return self.meter.info.seed or 0


def wanted_scores(meter: Meter, config: ControlsConfig) -> list[str]:
    """The main score, then the others of the config. Errors: `UnknownName`."""
    return meter.names([meter.main, *config.scores])


def plain_rows(rows: Sequence[ControlRow]) -> list[dict[str, Any]]:
    """Rows as plain values."""
    return [row.to_json() for row in rows]


def false_concept_part(bench: Bench) -> dict[str, Any]:
    """How F2 and F1 predict F3, the false concepts that only a clean twin betrays, at each dose."""
    clean = {case.pair: case.text for case in bench.suite.cases if not case.shifted}
    rows: list[ControlRow] = []
    whole: list[dict[str, Any]] = []
    for dose in bench.config.doses:
        twins = [Twin(c.id, clean[c.pair], c.text) for c in bench.suite.cases if c.shifted and c.dose == dose]
        found = predict_f3(
            bench.meter,
            twins,
            batch_tokens=bench.config.batch_tokens,
            resamples=bench.config.resamples,
            seed=bench.config.seed,
        )
        rows += _false_rows(found, dose, bench.seed)
        whole.append({"dose": dose, **found.to_json()})
    return {"controls": plain_rows(rows), "false_concepts": whole}


def _false_rows(found: FallaciousResult, dose: float, seed: int) -> list[ControlRow]:
    rows: list[ControlRow] = []
    about = {"dose": dose, "seed": seed}
    for row in found.rows:
        if row.oracle != "f3" or row.words != "all":
            continue
        # That every active concept is flagged has a recall of 1, which no choice among them can exceed.
        asked = row.against == "fallacious_f1" or (
            row.against == "active" and row.metric in ("precision", "informedness")
        )
        if row.against and not asked:
            continue
        metric = f"{row.metric}_difference" if row.against else row.metric
        box = Interval(row.estimate, row.low, row.high, row.n_pairs, row.method)
        expected = ABOVE if row.against else ""
        rows.append(
            control_row("f2_predicts_f3", row.detector, metric, box, expected=expected, against=row.against, **about)
        )
    sizes = {"fresh_concepts": found.fresh, "harmless_concepts": found.harmless, "f3_concepts": found.f3}
    for metric, box in sizes.items():
        expected = ABOVE if metric == "f3_concepts" else ""
        rows.append(control_row("f2_predicts_f3", "f3", metric, box, expected=expected, **about))
    return sorted(rows, key=lambda row: (row.holds is None, row.against != "fallacious_f1"))


def paired_cases(suite: Suite, dose: float) -> tuple[list[int], list[int]]:
    """Clean cases and their twins at a dose, in the order of the pairs."""
    clean = {c.pair: i for i, c in enumerate(suite.cases) if not c.shifted}
    twins = [i for i, c in enumerate(suite.cases) if c.shifted and c.dose == dose]
    return [clean[suite.cases[i].pair] for i in twins], twins


def clean_part(bench: Bench, dictionaries: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing to be found: two halves of clean text, from different documents, and pairs with shuffled labels."""
    config, meter = bench.config, bench.meter
    order = shuffled(bench.clean, f"halves:{config.seed}")
    sides: list[dict[str, Tensor]] = []
    names = wanted_scores(meter, config)
    for documents in (order[::2], order[1::2]):
        texts = passages(documents, words=config.words, n=config.passages, seed=config.seed)
        readings = meter.score(
            [t.text for t in texts],
            ids=[t.id for t in texts],
            detectors=names,
            batch_tokens=config.batch_tokens,
            explain=False,
            progress=bench.progress,
        )
        sides.append({name: torch.tensor([r.scores[name] for r in readings]) for name in names})
    rows = clean_halves(*sides, seed=bench.seed)
    draw = generator(config.seed)
    own = torch.tensor(dictionaries["scores"]["own"][meter.main])
    for dose in config.doses:
        clean, twins = paired_cases(bench.suite, dose)
        rows += shuffled_labels(
            meter.main, own[clean], own[twins], shuffles=config.shuffles, draw=draw, dose=dose, seed=bench.seed
        )
    return {"controls": plain_rows(rows)}


def p_value_part(bench: Bench) -> dict[str, Any]:
    """P-values of held-out clean prompts of mixed lengths, one a document, and of simulated exchangeable scores."""
    config, meter = bench.config, bench.meter
    fitted = meter.details.get("config", {})
    low, high = fitted.get("words_low", 15), fitted.get("words_high", 200)
    cut = cut_passages(shuffled(bench.clean, f"p:{config.seed}"), low, high, config.seed)
    texts = _that_fit(meter, cut, config.clean_prompts)
    readings = meter.score(
        [text for _, text in texts],
        ids=[name for name, _ in texts],
        batch_tokens=config.batch_tokens,
        explain=False,
        progress=bench.progress,
    )
    scores = torch.tensor([r.score for r in readings])
    lengths = torch.tensor([float(r.tokens_scored) for r in readings])
    found = meter.normal.calibration.p_values(meter.main, scores, lengths)
    groups = ["pooled" if short else group for group, short in zip(found.group, found.fallback.tolist(), strict=True)]
    sizes = found.n.tolist()
    rows = held_out_p_values(meter.main, found.p, groups, sizes, seed=bench.seed)
    rows += simulated_p_values(
        config.simulated,
        calibration=int(meter.normal.calibration.scores[meter.main]["pooled"].numel()),
        groups=len(meter.normal.calibration.groups.labels),
        draw=generator(config.seed),
        seed=bench.seed,
    )
    return {
        "controls": plain_rows(rows),
        "false_alarms": [row.to_json() for row in false_alarms(found.p, groups, sizes)],
        "p_values": [row.to_json() for row in p_histograms(found.p, groups)],
    }


def _that_fit(meter: Meter, texts: Sequence[tuple[str, str]], wanted: int) -> list[tuple[str, str]]:
    """The first texts that can be scored. Errors: `TooFewSamples`."""
    found: list[tuple[str, str]] = []
    for name, text in texts:
        if len(found) == wanted:
            break
        try:
            meter.extractor.prepare([name], [text])
        except (PromptTooLong, NoScorableToken):
            continue
        found.append((name, text))
    if len(found) < 20:
        raise TooFewSamples(f"the held-out text gives {len(found)} clean prompts; wanted at least 20; give more of it")
    return found
