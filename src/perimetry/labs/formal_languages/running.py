"""One language under one seed: its model, dictionaries of every loss, what they keep of its behaviour, and the meter."""

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.formal_languages.attachment import AttachConfig, attach
from perimetry.labs.formal_languages.causes import correlations, dense_codes, moved_by, truths
from perimetry.labs.formal_languages.dictionaries import (
    PENALTIES,
    RELEASED,
    Made,
    SAESizes,
    controls,
    dictionary,
    normalised,
    spliced,
)
from perimetry.labs.formal_languages.fitting import (
    CausalSizes,
    alone,
    causal,
    interpolation,
    released_weight,
    undertrained,
)
from perimetry.labs.formal_languages.measures import Bench, bench_of, of_dictionary, of_splice
from perimetry.labs.formal_languages.models import LanguageArm, states_of, texts, train_language
from perimetry.labs.formal_languages.parts import of_parts
from perimetry.measures.stats import wilson

__all__ = ["BRACKETS", "Sizes", "SlowSizes", "run_causal", "run_language"]

BRACKETS: Final = "dyck"
"""Beginning of the names of languages with brackets: what is asked of one language only is asked of these."""
SLOW: Final = 1e-5
"""The published learning rate."""
RELEASED_LR: Final = 1e-3
"""Of the dictionary with the released L1 loss: quick enough to be no excuse."""
SLOW_BATCH: Final = 128
"""The published number of tokens of a step."""
WEIGHTS: Final = (0.0, 1.0, 100.0)
"""Of the causal loss."""
LONG: Final = 10
"""Fewest tokens of a string within which tokens move towards each other."""
SHARES: Final = (0.02, 0.2)
"""Shares of the way at which interpolation is measured."""
GOES_WITH: Final = 0.5
"""Least correlation of a latent that goes with a variable."""
HOLDING: Final = 8
"""Active latents of the dictionary whose latents are held."""
HELD: Final = 100
"""Strings that are written at each value of a latent that is held."""


class SlowSizes(NamedTuple):
    """Sizes at the published learning rate."""

    expansions: tuple[int, ...]
    """Latents, in widths of the stream."""
    counts: tuple[int, ...]
    """Active latents."""
    steps: int
    """Updates."""


class Sizes(NamedTuple):
    """Sizes."""

    strings: int
    """Strings that dictionaries are trained on."""
    tests: int
    """Test strings."""
    samples: int
    """Strings that are written with each splice."""
    sae: SAESizes
    """Dictionaries."""
    counts: tuple[int, ...]
    """Active latents of the TopK dictionaries."""
    released: tuple[int, int]
    """Steps and tokens of a step of the dictionary with the L1 term as released."""
    slow: SlowSizes
    """Dictionaries at the published learning rate."""
    causal: CausalSizes
    """Training with the causal loss."""
    held: int
    """Most latents that are held at a value."""
    at: AttachConfig
    """The meter."""
    parts: int
    """Training steps of the dictionaries of parts of speech."""


Found = tuple[list[Measured], dict[str, Curve]]


def _prepared(arm: LanguageArm, seed: int, sizes: Sizes) -> tuple[Bench, list[list[int]]]:
    """The model with what it is tested on, and the strings that dictionaries are trained on."""
    bench = bench_of(arm, train_language(arm, seed, arm.steps), sizes.tests, sizes.samples, seed)
    source = random.Random(674_506_111 + seed)
    return bench, [bench.language.draw(source, arm.longest) for _ in range(sizes.strings)]


def run_causal(arm: LanguageArm, seed: int, sizes: Sizes) -> Outcome:
    """The causal loss alone."""
    bench, strings = _prepared(arm, seed, sizes)
    measured, curves = _causal(bench, strings, sizes.causal, seed)
    return Outcome(of_splice(bench, None, "model") + measured, curves)


def run_language(arm: LanguageArm, seed: int, sizes: Sizes) -> Outcome:
    """Train the model once and measure everything that is put in the place of its states."""
    bench, strings = _prepared(arm, seed, sizes)
    states = states_of(bench.model, texts(strings, arm.longest))
    measured = of_splice(bench, None, "model")
    by_count: dict[int, list[Measured]] = {}
    for name, k, made in _dictionaries(states, sizes, seed):
        own = _of(bench, made, name)
        measured += own
        if k is not None:
            by_count[k] = own
        if k == HOLDING:
            measured += _causes(bench, made, sizes.held, seed)
    curves = _curves(by_count, "topk")
    for name, splice in (normalised(states, sizes.sae, seed, 16) | controls(states, sizes.sae, seed)).items():
        measured += of_splice(bench, splice, name)
    if arm.language == "english":
        measured += of_parts(bench, states, sizes.sae.latents, sizes.parts, seed)
    if arm.language.startswith(BRACKETS):
        for more, lines in (
            _slow(bench, states, sizes.slow, seed),
            _causal(bench, strings, sizes.causal, seed),
            attach(bench.model, arm, sizes.at, seed),
        ):
            measured += more
            curves |= lines
    return Outcome(measured, curves)


def _of(bench: Bench, made: Made, name: str) -> list[Measured]:
    return of_splice(bench, made.splice, name) + of_dictionary(bench, made.sae, name)


def _dictionaries(states: Tensor, sizes: Sizes, seed: int) -> Iterator[tuple[str, int | None, Made]]:
    """Name, active latents where they are fixed, and dictionary."""
    for k in sizes.counts:
        yield f"topk {k}", k, dictionary(states, sizes.sae, seed, k=k)
    for penalty in PENALTIES:
        yield f"l1 {penalty:g}", None, dictionary(states, sizes.sae, seed, penalty=penalty)
    steps, batch = sizes.released
    weight = released_weight(RELEASED, batch, states.shape[1])
    own = sizes.sae._replace(steps=steps, batch=batch, lr=RELEASED_LR)
    yield "l1 as released", None, dictionary(states, own, seed, penalty=weight)


def _curves(by_count: dict[int, list[Measured]], name: str) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for metric in ("validity", "deep validity", "unexplained"):
        values = [m.value for own in by_count.values() for m in own if m.metric == metric]
        if values:
            found[f"{metric}, {name}"] = Curve([float(k) for k in by_count], values)
    return found


def _causes(bench: Bench, made: Made, most: int, seed: int) -> list[Measured]:
    """Best correlation of any latent with each variable; of the latents that go with one, the share that moves it when held."""
    codes = dense_codes(made.sae, bench.states)
    known = correlations(codes, truths(bench.language, bench.strings))
    best = known.abs().amax(0)
    found = [
        Measured("best correlation", float(value), name)
        for name, value in zip(bench.language.variables, best, strict=True)
    ]
    strength, variable = known.abs().max(1)
    going = [int(i) for i in strength.argsort(descending=True)[:most] if strength[i] >= GOES_WITH]
    found.append(Measured("latents that go with a variable", float((strength >= GOES_WITH).sum())))
    if going:
        moves = [
            moved_by(
                bench.model,
                bench.language,
                made.sae,
                latent,
                float(codes[:, latent].max()),
                int(variable[latent]),
                HELD,
                982_451_653 + seed,
            ).told()
            for latent in going
        ]
        found.append(Measured.within("share of them that moves it", wilson(sum(moves), len(moves))))
    return found


def _slow(bench: Bench, states: Float[Tensor, "token d"], slow: SlowSizes, seed: int) -> Found:
    """Dictionaries at the published learning rate, which hardly moves them."""
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    for expansion in slow.expansions:
        by_count: dict[int, list[Measured]] = {}
        for k in slow.counts:
            made = undertrained(states, expansion * states.shape[1], k, slow.steps, SLOW_BATCH, SLOW, seed)
            by_count[k] = _of(bench, Made(made, spliced(made)), f"slow topk {k} of {expansion}x")
            measured += by_count[k]
        curves |= _curves(by_count, f"slow {expansion}x")
    return measured, curves


def _causal(bench: Bench, strings: list[list[int]], sizes: CausalSizes, seed: int) -> Found:
    """The causal loss by its weight: how much straighter, and at what cost."""
    read, tests = (
        alone(bench.model, [one for one in several if len(one) >= LONG]) for several in (strings, bench.strings)
    )
    measured: list[Measured] = []
    relative: dict[float, float] = {}
    valid: dict[float, float] = {}
    for weight in WEIGHTS:
        made, case = causal(bench.model, read, sizes, weight, seed), f"causal {weight:g}"
        own = _of(bench, Made(made, spliced(made)), case)
        valid[weight] = own[0].value
        for share in SHARES:
            found = interpolation(bench.model, tests, made, share)
            own.append(Measured(f"interpolation error at {share:g}", float(found.error), case))
            own.append(Measured(f"relative interpolation error at {share:g}", float(found.error / found.size), case))
        relative[weight] = own[-1].value
        measured += own
    for weight in WEIGHTS[1:]:
        case = f"causal {weight:g}"
        measured.append(Measured("times straighter", relative[0.0] / relative[weight], case))
        measured.append(Measured("validity lost to it", valid[0.0] - valid[weight], case))
    curves = {
        "relative interpolation error, causal": Curve(list(relative), list(relative.values())),
        "validity, causal": Curve(list(valid), list(valid.values())),
    }
    return measured, curves
