"""What every arm of the robustness study is judged by, unit by unit: next tokens, shift by other meters, questions, refusals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.text import Passage
from perimetry.assets import ASSETS, read_texts
from perimetry.evals.damage_choice import QUESTION_SETS, Question, chosen_options, cloze_questions, probe_questions
from perimetry.evals.harness import harness_units
from perimetry.evals.refusal import METRICS as REFUSALS
from perimetry.evals.refusal import refusal_units
from perimetry.evals.robustness import METRICS as NEXT
from perimetry.evals.robustness import NextTokens, robustness_units
from perimetry.evals.sae.base import Metric
from perimetry.evals.sae.units import Cell, Units, means
from perimetry.pipeline.bench_parts import score_prompts
from perimetry.pipeline.robustify_config import Dose
from perimetry.pipeline.robustify_parts import Texts, measure_model
from perimetry.pipeline.robustness_config import BASE, RobustnessConfig
from perimetry.robust.texts import Corruption, corrupted
from perimetry.shift.meter import Meter

__all__ = ["METRICS", "Bench", "Reference", "judge", "make_bench", "reference"]

METRICS: Final[dict[str, Metric]] = {
    **NEXT,
    **REFUSALS,
    "harness": Metric("share", higher=True, text="documents of a task of the lm-evaluation-harness answered rightly"),
    "accuracy": Metric("share", higher=True, text="multiple-choice questions answered rightly"),
    "shift": Metric(
        "deviations",
        higher=False,
        text="score of corrupted texts, in deviations from what clean texts had before tuning",
    ),
    "shift_clean": Metric("deviations", higher=None, text="the same of the clean texts themselves"),
}
"""What the numbers mean."""


class Bench(NamedTuple):
    """What all arms are judged on."""

    config: RobustnessConfig
    """Sizes."""
    judges: dict[str, Meter]
    """Meters by name, on the model that is tuned; `own` is the one in the loss."""
    texts: Texts
    """Held-out passages."""
    questions: list[Question]
    """Multiple choice; empty where it was not asked for."""


class Reference(NamedTuple):
    """What the untuned model made of the held-out texts."""

    next: dict[str, NextTokens]
    """Next tokens by perturbation."""
    moments: dict[str, tuple[float, float]]
    """Mean and deviation of each judge's scores of clean texts."""


def make_bench(config: RobustnessConfig, judges: dict[str, Meter], texts: Texts, *, progress: bool = False) -> Bench:
    """Draw the questions. Errors: `TooFewSamples`, those of `read_texts`."""
    if not config.questions:
        questions: list[Question] = []
    elif config.data.text in ASSETS:
        found = [(name, list(read_texts(f"probe-texts/{name}", progress=progress))) for name in QUESTION_SETS]
        questions = [q for name, rows in found for q in probe_questions(rows, name, config.questions)]
    else:
        words = max(1, config.data.words // 4)
        questions = cloze_questions(texts.test[: config.questions], words=words, options=min(4, len(texts.test)))
    return Bench(config, judges, texts, questions)


def _table(bench: Bench, texts: Sequence[Passage], corruption: Dose | None, progress: bool) -> dict[str, Tensor]:
    """Scores of the passages by `judge:detector`."""
    said = [p.text if corruption is None else _corrupted(p, corruption) for p in texts]
    meters = list(bench.judges.values())
    prompts = meters[0].extractor.prepare([p.id for p in texts], said)
    tables = score_prompts(meters, prompts, "judging meters", 4096, progress).tables
    return {
        f"{name}:{detector}": table[detector].double()
        for name, table in zip(bench.judges, tables, strict=True)
        for detector in bench.config.detectors
        if detector in table
    }


def _corrupted(passage: Passage, one: Dose) -> str:
    return corrupted(passage.text, Corruption(one.kind, one.dose), f"test:{passage.id}")


def reference(bench: Bench, lm: LanguageModel, *, progress: bool = False) -> Reference:
    """Read the held-out texts with the untuned model."""
    policy = bench.judges["own"].policy
    found = measure_model(
        lm, bench.texts, bench.config.data.measured, policy, what="the untuned model", progress=progress
    )
    clean = _table(bench, bench.texts.test, None, progress)
    moments = {name: (float(v.mean()), max(float(v.std()), 1e-12)) for name, v in clean.items()}
    return Reference(found, moments)


def judge(bench: Bench, lm: LanguageModel, arm: str, before: Reference, *, progress: bool = False) -> list[Units]:
    """Every number of the model as it is now."""
    config, policy = bench.config, bench.judges["own"].policy
    now = measure_model(lm, bench.texts, config.data.measured, policy, what=arm, progress=progress)
    found: list[Units] = []
    for number, one in enumerate(config.data.measured):
        for units in robustness_units(now[one.case], before.next[one.case], one.case, arm):
            if units.cell.metric in ("clean_loss", "clean_rise"):
                # Clean text is the same whatever corrupts its twin.
                if number:
                    continue
                units = units._replace(cell=units.cell._replace(case=""))
            found.append(units)
    for metric, dose in (("shift", config.first), ("shift_clean", None)):
        scores = _table(bench, bench.texts.test, dose, progress)
        found += [_deviations(metric, name, scores[name], before.moments, bench.texts.test, arm) for name in scores]
    if arm not in (BASE, *config.asked):
        return found
    found += _accuracy(bench, lm, arm)
    if config.harness:
        folder = Path(config.harness_folder) if config.harness_folder else None
        found += harness_units(lm, arm, config.harness, limit=config.harness_limit or None, folder=folder)
    return found + (refusal_units(lm, arm) if config.refusals and lm.template is not None else [])


def _deviations(
    metric: str,
    name: str,
    values: Tensor,
    moments: Mapping[str, tuple[float, float]],
    texts: Sequence[Passage],
    arm: str,
) -> Units:
    mean, deviation = moments[name]
    return means(Cell(metric, case=name, arm=arm), [p.id for p in texts], (values - mean) / deviation)


def _accuracy(bench: Bench, lm: LanguageModel, arm: str) -> list[Units]:
    """Answers after clean and after corrupted questions."""
    if not bench.questions:
        return []
    one = bench.config.first
    bad = [
        q._replace(context=corrupted(q.context, Corruption(one.kind, one.dose), f"question:{q.id}"))
        for q in bench.questions
    ]
    names = [f"{number}:{q.id}" for number, q in enumerate(bench.questions)]
    found: list[Units] = []
    for case, questions in (("clean", bench.questions), (one.case, bad)):
        said = chosen_options(lm, questions)
        right: list[Any] = [float(a == q.answer) for a, q in zip(said, questions, strict=True)]
        found.append(means(Cell("accuracy", case=case, arm=arm), names, torch.tensor(right, dtype=torch.float64)))
    return found
