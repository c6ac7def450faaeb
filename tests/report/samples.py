"""Results such as the demo writes, from synthetic scores."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from perimetry.evals import BenchConfig, ScoreTable, bench, false_alarms, over_seeds, p_histograms
from perimetry.perturb import Typos
from perimetry.shift.conformal import conformal_p
from perimetry.shift.reading import ConceptEvidence, Reading, TokenReading
from perimetry.suites import Case, Suite

GAINS = {
    "l0": 6.0,
    "surprise": 8.0,
    "surprise.top10": 8.4,
    "energy": 5.0,
    "fallacious_f2": 7.0,
    "nll": 4.5,
    "nll.max": 4.0,
    "mahalanobis": 2.5,
    "tokens_per_word": 3.5,
    "knn": 3.0,
    "length": 0.4,
}
BASELINES = ("nll", "mahalanobis", "tokens_per_word", "knn", "length")
TEXT = (
    "The river was first mapped in the early eighteenth century by surveyors who walked its whole length in a single "
    "summer. Their notes describe forests, mills and long empty valleys, and they are still the best source on the "
    "villages that were flooded when the dam was built."
)


def dial(pairs: int) -> Suite:
    cases = [Case(f"{i}/clean", "t", str(i), "clean", 0.0, False) for i in range(pairs)]
    for dose in (0.05, 0.1, 0.2, 0.5):
        cases += [Case(f"{i}/{dose}", "t", str(i), "typos", dose, True) for i in range(pairs)]
    doses = [{"family": "typos", "dose": dose, "unchanged": 0, "ks_tokens": dose / 2} for dose in (0.05, 0.1, 0.2, 0.5)]
    return Suite("typos", "Synthetic.", tuple(cases), {"negatives": "the same passages, uncorrupted", "doses": doses})


def attacks(pairs: int) -> Suite:
    cases: list[Case] = []
    for i in range(pairs):
        cases.append(Case(f"a{i}", "x", f"p{i}", ("dan", "tap", "in_the_wild")[i % 3], 0.25, True))
        cases.append(Case(f"w{i}", "x", f"p{i}", "passage", 0.0, False))
        cases.append(Case(f"b{i}", "x", f"p{i}", "role_play", 0.0, False))
    lengths = [{"negatives": "passage", "unmatched": 0, "ks_tokens": 0.02}]
    return Suite("jailbreaks", "Synthetic.", tuple(cases), {"tolerance": 0.1, "cut_to_limit": 3, "lengths": lengths})


def table(cases: Sequence[Case], seed: int) -> ScoreTable:
    draw = torch.Generator().manual_seed(seed)
    dose = torch.tensor([case.dose for case in cases], dtype=torch.float64)
    noise = torch.randn(len(cases), generator=draw, dtype=torch.float64)
    scores = {
        name: gain * dose + noise + 0.6 * torch.randn(len(cases), generator=draw, dtype=torch.float64)
        for name, gain in GAINS.items()
    }
    kinds: dict[str, Any] = {n: "baseline" if n.split(".")[0] in BASELINES else "concept" for n in GAINS}
    return ScoreTable(scores, kinds)


def reading(name: str, text: str, hot: set[str]) -> Reading:
    rng = random.Random(name)
    tokens = tuple(
        TokenReading((" " if i else "") + word, (9.0 if word in hot else 1.0) + rng.random() * 3)
        for i, word in enumerate(text.split(" "))
    )
    concepts = (
        ConceptEvidence(
            3921, "mpaped", 4, 2.31, 0.00021, 8.47, ("a list of «misspelt» words in the margin", "see «teh»")
        ),
        ConceptEvidence(77, "jn", 6, 1.02, 0.0, 9.93, ()),
    )
    score = sum(token.score for token in tokens) / len(tokens)
    p = 0.004 if hot else 0.43
    scores = {"surprise": score}
    return Reading(
        name,
        score,
        p,
        bool(hot),
        0.05,
        "tokens 40-79",
        False,
        len(tokens),
        1,
        False,
        "surprise",
        scores,
        tokens,
        concepts,
        "m",
    )


def example(seed: int, dose: float) -> dict[str, Any]:
    twin = Typos().apply(TEXT, dose, random.Random(seed))
    hot = {b for a, b in zip(TEXT.split(), twin.split(), strict=True) if a != b}
    return {
        "title": f"Typing errors in {100 * dose:g} % of the words",
        "clean": reading(f"clean{seed}", TEXT, set()).to_json(tokens=True, concepts=True),
        "shifted": reading(f"twin{seed}", twin, hot).to_json(tokens=True, concepts=True),
    }


def results(seeds: Sequence[int] = (0, 1, 2), pairs: int = 60) -> dict[str, Any]:
    quick = BenchConfig(resamples=100)
    rows, roc, matching = [], [], {}
    for seed in seeds:
        for suite in (dial(pairs), attacks(pairs)):
            found = bench(lambda cases, s=seed: table(cases, s), suite, main="surprise", seed=seed, config=quick)
            rows += found.rows
            roc += found.roc if seed == seeds[0] else []
            matching[suite.name] = found.matching
    draw = torch.Generator().manual_seed(0)
    groups = ["tokens 1-39", "tokens 40-79"] * 100
    p_values = conformal_p(torch.randn(199, generator=draw).sort().values, torch.randn(200, generator=draw))
    alarms = false_alarms(p_values, groups, [199] * 200)
    steps = [
        {"tokens": i * 5e3, "fvu": 0.15 + 0.7 * 0.97**i, "l0": 40 + 20 * 0.95**i, "dead": 0.02} for i in range(200)
    ]
    return {
        "title": "Shift report",
        "subtitle": "SmolLM2-135M-Instruct, after block 12, BatchTopK SAE of width 4,608",
        "command": "perimetry demo --out runs/demo",
        "version": "0.1.0",
        "hardware": {"processor": "two cores", "threads": 2},
        "date": "2026-01-02T03:04:05Z",
        "rows": [row.to_json() for row in rows],
        "seeds": [row.to_json() for row in over_seeds(rows)],
        "main": "surprise",
        "validation": "The main score was chosen on 100 validation passages with other typing errors.",
        "matching": matching,
        "false_alarms": [row.to_json() for row in alarms],
        "p_values": [entry.to_json() for entry in p_histograms(p_values, groups)],
        "roc": [curve.to_json() for curve in roc],
        "examples": [example(1, 0.2), example(2, 0.1)],
        "training": [{"label": "seed 0", "points": steps}],
        "configuration": {"sae": {"width": 4608, "k": 40}, "seeds": list(seeds)},
        "timings": {"ignored": 1},
    }
