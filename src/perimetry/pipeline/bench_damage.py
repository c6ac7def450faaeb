"""Damage beside the scores: what a corruption did to the model itself, and which detectors follow it."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Twin
from perimetry.assets import Document
from perimetry.errors import UsageError
from perimetry.evals.damage import Damage, damage
from perimetry.evals.damage_choice import QUESTION_SETS, choice_damage, probe_questions
from perimetry.evals.damage_ranks import Agreement, agreements, spearman_draws
from perimetry.evals.rows import Place, Row, row_at
from perimetry.evals.scores import ScoreTable
from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval, percentile_interval, resample_counts
from perimetry.perturb import Typos
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.runtime import generator
from perimetry.suites import Suite
from perimetry.ui import track

__all__ = ["DamagePart", "TwinDamage", "choice_part", "damage_part", "twin_damage"]

CHUNK = 32
LEAST = 8
"""Passages below which no rank correlation is given."""
POINTS = 400
"""Most points of one detector in a figure."""
OVER_ALL = 0.0
"""Stands for all doses together."""


class DamagePart(NamedTuple):
    """Damage on one suite."""

    rows: list[Row]
    """Rank correlations of detectors with damage, and the main score's minus those of baselines."""
    damage: list[dict[str, Any]]
    """Mean damage by family and dose: plain values."""
    points: list[dict[str, Any]]
    """Scores and damage of single texts, for figures: plain values."""


class TwinDamage(NamedTuple):
    """Damage of the corrupted cases of a suite."""

    cases: tuple[int, ...]
    """Their indices in the suite."""
    found: Damage
    """Damage of each."""


def twin_damage(
    lm: LanguageModel, policy: TokenPolicy, suite: Suite, doses: Sequence[float], *, progress: bool = False
) -> TwinDamage:
    """The damage of all corrupted cases at these doses. Errors: those of `damage`, `UsageError` where there are none."""
    clean = {case.pair: case.text for case in suite.cases if not case.shifted}
    cases = [i for i, c in enumerate(suite.cases) if c.shifted and c.dose in doses and c.pair in clean]
    if not cases:
        raise UsageError(f"suite {suite.name!r} has no twins at the doses {list(doses)}; leave it out of `damage`")
    twins = [Twin(suite.cases[i].id, clean[suite.cases[i].pair], suite.cases[i].text) for i in cases]
    chunks = [twins[start : start + CHUNK] for start in range(0, len(twins), CHUNK)]
    shown = track(chunks, f"damage {suite.name}", len(twins), progress, len)
    parts = [damage(lm, chunk, policy=policy) for chunk in shown]
    columns = zip(*parts, strict=True)
    ids, *numbers = columns
    joined = Damage(tuple(i for part in ids for i in part), *(torch.cat(list(column)) for column in numbers))
    return TwinDamage(tuple(cases), joined)


def _values(found: Damage) -> dict[str, Tensor]:
    return {"kl": found.kl.double(), "nll_rise": found.nll_rise.double()}


def _mean(values: Tensor, units: Sequence[str], resamples: int) -> Interval:
    names = {name: i for i, name in enumerate(dict.fromkeys(units))}
    place = torch.tensor([names[unit] for unit in units])
    counts = resample_counts(len(names), resamples, generator(0)).double()[:, place]
    return percentile_interval(float(values.mean()), counts @ values / counts.sum(1), len(names), "bootstrap by pair")


def _entry(suite: str, family: str, dose: float, measure: str, box: Interval | Difference) -> dict[str, Any]:
    return {
        "suite": suite,
        "family": family,
        "dose": dose,
        "measure": measure,
        "estimate": box.estimate,
        "low": box.low,
        "high": box.high,
        "n_pairs": box.n,
        "method": box.method,
    }


def damage_part(
    suite: Suite,
    twins: TwinDamage,
    tables: Sequence[ScoreTable],
    mains: Sequence[str],
    config: BenchConfig,
    seeds: Sequence[int],
) -> DamagePart:
    """How much damage there is, and which scores follow it, for each meter (its table, main score and SAE seed)."""
    cases = [suite.cases[i] for i in twins.cases]
    values = _values(twins.found)
    arms = sorted({(case.family, case.dose) for case in cases})
    summary: list[dict[str, Any]] = []
    for family, dose in arms:
        own = [i for i, case in enumerate(cases) if (case.family, case.dose) == (family, dose)]
        units = [cases[i].pair for i in own]
        summary += [
            _entry(suite.name, family, dose, kind, _mean(v[own], units, config.resamples)) for kind, v in values.items()
        ]
    rows: list[Row] = []
    doses = sorted({case.dose for case in cases})
    for table, main, seed in zip(tables, mains, seeds, strict=True):
        for dose in [OVER_ALL, *doses] if len(doses) > 1 else doses:
            own = [i for i, case in enumerate(cases) if dose in (OVER_ALL, case.dose)]
            if len({cases[i].pair for i in own}) >= LEAST:
                rows += _rank_rows(suite, twins, own, table, main, dose, seed, config.resamples)
    return DamagePart(rows, summary, _points(suite, twins, tables[0], mains[0]) if tables else [])


def _rank_rows(
    suite: Suite,
    twins: TwinDamage,
    own: Sequence[int],
    table: ScoreTable,
    main: str,
    dose: float,
    seed: int,
    resamples: int,
) -> list[Row]:
    places = [twins.cases[i] for i in own]
    shown = [name for name in table.scores if "." not in name or name == main]
    scores = {name: table.scores[name][places].double() for name in shown}
    units = [suite.cases[i].pair for i in places]
    harm = {kind: v[list(own)] for kind, v in _values(twins.found).items()}
    found = agreements(scores, harm, units, generator(0), against=main, resamples=resamples)
    families = {suite.cases[i].family for i in places}
    family = families.pop() if len(families) == 1 else "all"

    place = Place(suite.name, family, dose, "none", len(places), 0, seed)
    rows = [
        row_at(place, a.detector, table.kinds[a.detector], f"damage_{a.damage}_spearman", a.spearman) for a in found
    ]
    for kind in harm:
        rivals = [a for a in found if a.damage == kind and table.kinds[a.detector] == "baseline" and a.gain is not None]
        best = min(rivals, key=lambda a: (-a.spearman.estimate, a.detector), default=None)
        if best is not None:
            metric = f"damage_{kind}_spearman_difference"
            told = {"against": best.detector, "selection": "main"}
            rows.append(row_at(place, main, "concept", metric, _turned(best), best_baseline=True, **told))
    return rows


def _turned(rival: Agreement) -> Difference:
    """The main score's correlation minus the rival's, out of the rival's minus the main score's."""
    gain = rival.gain
    assert gain is not None, "rivals have a gain"
    return gain._replace(estimate=-gain.estimate, low=-gain.high, high=-gain.low)


def _points(suite: Suite, twins: TwinDamage, table: ScoreTable, main: str) -> list[dict[str, Any]]:
    """The main score and the baseline that follows the divergence best, each against it."""
    places, kl = list(twins.cases), twins.found.kl.double()
    count = torch.ones(1, kl.numel(), dtype=torch.float64)
    fits = {
        name: float(spearman_draws(values[places].double(), kl, count)[0])
        for name, values in table.scores.items()
        if table.kinds[name] == "baseline" and "." not in name
    }
    best = min(fits, key=lambda name: (-fits[name], name), default=None)
    step = -(-len(places) // POINTS)
    return [
        {
            "suite": suite.name,
            "detector": name,
            "kind": table.kinds[name],
            "dose": [suite.cases[i].dose for i in places][::step],
            "score": table.scores[name][places].tolist()[::step],
            "kl": kl.tolist()[::step],
        }
        for name in dict.fromkeys(filter(None, (main, best)))
    ]


def choice_part(
    lm: LanguageModel,
    policy: TokenPolicy,
    config: BenchConfig,
    read: Callable[[str], Iterable[Document]],
    *,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Accuracy on each set of questions with and without typing errors at the highest dose of `damage_doses`."""
    dose, typos = max(config.damage_doses), Typos()
    entries: list[dict[str, Any]] = []
    for name in track(list(QUESTION_SETS), "questions", len(QUESTION_SETS), progress, lambda _: 1):
        questions = probe_questions(read(f"probe-texts/{name}"), name, config.questions, config.seed)
        found = choice_damage(
            lm,
            questions,
            lambda q: typos.apply(q.context, dose, random.Random(f"{config.seed}:{q.id}")),
            generator(config.seed),
            policy=policy,
            resamples=config.resamples,
        )
        boxes: Mapping[str, Interval | Difference] = {
            "accuracy_clean": found.clean,
            "accuracy_corrupted": found.corrupted,
            "accuracy_loss": found.loss,
        }
        entries += [
            _entry("questions", name, dose, measure, box) | {"chance": found.chance} for measure, box in boxes.items()
        ]
    return entries
