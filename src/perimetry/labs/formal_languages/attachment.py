"""The shift meter on brackets: tokens exchanged by dose, legal strings nested deeper than any trained on, another grammar."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perimetry.labs.base import Curve, Measured
from perimetry.labs.formal_languages.grammars import FIRST, PAD, AbstractLanguage, Dyck
from perimetry.labs.formal_languages.models import LanguageArm, losses, states_of, texts
from perimetry.labs.nano import Nano
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs, evidence_of, recipe_of, train_on_points
from perimetry.measures.ranking import auroc_interval, delong_difference
from perimetry.measures.reconstruction import fvu
from perimetry.measures.stats import spearman

__all__ = ["DOSES", "SCORES", "AttachConfig", "attach"]

DOSES: Final = (1, 2, 4, 8)
"""Tokens exchanged."""
LENGTHS: Final = (10, 24)
"""Shortest and longest string."""
DEPTHS: Final = (8, 9, 10)
"""Depths of fully nested strings: beyond that of 98 % of strings, of which no other is nested like that."""
KINDS: Final = 4
"""Brackets: two that open, two that close."""
LIKELY: Final = "nll"
BOTH: Final = "bernoulli or nll"
SCORES: Final = (*CONCEPTS, BOTH, *BASELINES, LIKELY, "length")
"""Every score that is asked."""
Scores = dict[str, Tensor]
Strings = list[list[int]]


class AttachConfig(NamedTuple):
    """Sizes."""

    clean: int
    """Strings that the dictionary and the scores are made of."""
    tests: int
    """Test strings of each kind."""
    latents: int
    """Latents of the dictionary."""
    steps: int
    """Its training steps, of 512 tokens."""


def _middling(language: AbstractLanguage, count: int, source: random.Random) -> Strings:
    """Strings that are neither short nor long."""
    found: Strings = []
    while len(found) < count:
        one = language.draw(source, LENGTHS[1])
        if len(one) >= LENGTHS[0]:
            found.append(one)
    return found


def _exchanged(strings: Strings, dose: int, source: random.Random) -> Strings:
    """So many tokens of each, at places drawn without replacement, become one of the other three."""
    found: Strings = []
    for string in strings:
        one = list(string)
        for place in source.sample(range(len(one)), dose):
            one[place] = FIRST + (one[place] - FIRST + source.randrange(1, KINDS)) % KINDS
        found.append(one)
    return found


def _nested(count: int, source: random.Random) -> Strings:
    """Brackets each within the last, all opened before any is closed."""
    found: Strings = []
    for _ in range(count):
        kinds = [source.randrange(2) for _ in range(source.choice(DEPTHS))]
        found.append([*(FIRST + kind for kind in kinds), *(FIRST + 2 + kind for kind in reversed(kinds))])
    return found


def _crossed(strings: Strings, source: random.Random) -> Strings:
    """Another grammar on the same tokens: each kind is closed in its own order, across the other."""
    found: Strings = []
    for string in strings:
        apart = [iter([token for token in string if (token - FIRST) % 2 == kind]) for kind in range(2)]
        order = [(token - FIRST) % 2 for token in string]
        source.shuffle(order)
        found.append([next(apart[kind]) for kind in order])
    return found


class _Reader:
    """Every score of whole strings: the mean over their tokens."""

    def __init__(self, model: Nano, meter: PointMeter, clean: Strings) -> None:
        self.model, self.meter = model, meter
        usual = self._alone(clean)
        self.usual = {name: (float(usual[name].mean()), float(usual[name].std())) for name in ("bernoulli", LIKELY)}

    def _alone(self, strings: Strings) -> Scores:
        read = texts(strings, LENGTHS[1])
        found = {
            name: _means(values, read.inside) for name, values in self.meter.scores(states_of(self.model, read)).items()
        }
        found[LIKELY] = _means(losses(self.model, read), read.ids[:, 1:] != PAD)
        return found | {"length": torch.tensor([float(len(one)) for one in strings])}

    def __call__(self, strings: Strings) -> Scores:
        found = self._alone(strings)
        # The larger of the two, each in standard deviations from what is usual: one of them suffices.
        each = [(found[name] - mean) / deviation for name, (mean, deviation) in self.usual.items()]
        return found | {BOTH: torch.maximum(*each)}


def _means(values: Float[Tensor, " token"], where: Bool[Tensor, "string place"]) -> Float[Tensor, " string"]:
    """Mean over the tokens of each string."""
    rows = where.nonzero()[:, 0]
    return torch.zeros(len(where)).index_add(0, rows, values.float()) / where.sum(1)


def attach(model: Nano, arm: LanguageArm, at: AttachConfig, seed: int) -> tuple[list[Measured], dict[str, Curve]]:
    """AUROC, rank correlation with the dose, and what each score gains over likelihood."""
    language, source = arm.grammar(), random.Random(577_000_003 + seed)
    clean = _middling(language, at.clean, source)
    states = states_of(model, texts(clean, LENGTHS[1]))
    # A weight of 1 at a mean square norm of the width, brought to a total variance of 1.
    weight = 1 / states.shape[1] ** 0.5
    recipe = recipe_of("standard", width=at.latents, k=8, steps=at.steps, seed=seed, lr=3e-3, sparsity=weight)
    made = train_on_points(states, recipe)
    read = _Reader(model, PointMeter(made, states, (*CONCEPTS, *BASELINES)), clean)
    usual = _middling(language, at.tests, source)
    own = read(usual)
    doses = {dose: _exchanged(usual, dose, source) for dose in DOSES}
    kinds = {
        **{f"{dose} exchanged": strings for dose, strings in doses.items()},
        "nested": _nested(at.tests, source),
        "shallower": _middling(Dyck(0.3), at.tests, source),
        "crossed": _crossed(_middling(language, at.tests, source), source),
        "known again": _middling(language, at.tests, source),
    }
    found = {kind: read(strings) for kind, strings in kinds.items()}
    by_dose = [found[f"{dose} exchanged"] for dose in DOSES]
    inputs = made.inputs(states)
    evidence = evidence_of(made.sae, inputs)
    measured = [
        Measured("active latents of the meter", float(evidence.codes.count().double().mean())),
        Measured("unexplained by the meter", fvu(inputs, evidence.reconstruction)),
        *(one for kind, scores in found.items() for one in aurocs(f"AUROC of {kind}", own, scores)),
        *(one for kind, scores in found.items() for one in _gains(kind, own, scores)),
        *_by_dose(own, by_dose),
        *_invalid(language.valid, list(doses.values()), own, by_dose),
    ]
    curves = {
        name: Curve([float(d) for d in DOSES], [_area(measured, f"AUROC of {d} exchanged", name) for d in DOSES])
        for name in own
    }
    return measured, {f"AUROC, {name}": curve for name, curve in curves.items()}


def _area(measured: Sequence[Measured], metric: str, case: str) -> float:
    return next(one.value for one in measured if (one.metric, one.case) == (metric, case))


def _gains(kind: str, clean: Scores, shifted: Scores) -> list[Measured]:
    """Area of each score less that of likelihood on the same strings."""
    found: list[Measured] = []
    for name in clean:
        if name == LIKELY:
            continue
        pair = [torch.stack([side[name].double(), side[LIKELY].double()]) for side in (clean, shifted)]
        gain = delong_difference(*pair, pairs=False)
        found.append(Measured(f"gain over likelihood, {kind}", gain.estimate, name, gain.low, gain.high, gain.n))
    return found


def _by_dose(clean: Scores, shifted: Sequence[Scores]) -> list[Measured]:
    """Rank correlation of score and number of exchanged tokens, 0 among them."""
    parts = [clean, *shifted]
    doses = torch.cat([torch.full((len(one[LIKELY]),), float(n)) for n, one in zip((0, *DOSES), parts, strict=True)])
    return [
        Measured.within("score follows the dose", spearman(torch.cat([one[name] for one in parts]), doses), name)
        for name in clean
    ]


def _invalid(
    valid: Callable[[Sequence[int]], bool], strings: Sequence[Strings], clean: Scores, shifted: Sequence[Scores]
) -> list[Measured]:
    """Strings that the grammar does not give against those that it gives, exchanged or not."""
    right = torch.tensor([True] * len(clean[LIKELY]) + [valid(one) for several in strings for one in several])
    found: list[Measured] = []
    for name, values in clean.items():
        every = torch.cat([values, *(one[name] for one in shifted)])
        box = auroc_interval(every[right], every[~right], pairs=False)
        found.append(Measured.within("AUROC of what is not valid", box, name))
    return found
