"""What is left of a model's behaviour when something stands in the place of its states, and what a dictionary costs."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.formal_languages.grammars import AbstractLanguage
from perimetry.labs.formal_languages.models import LanguageArm, Splice, Texts, losses, states_of, texts
from perimetry.labs.formal_languages.writing import write
from perimetry.labs.nano import Nano
from perimetry.labs.points import Scaled, evidence_of
from perimetry.measures.reconstruction import fvu
from perimetry.measures.sparsity import dead_share, fires
from perimetry.measures.stats import ks_two_sample, mean_interval, wilson

__all__ = ["Bench", "bench_of", "of_dictionary", "of_splice"]


class Bench(NamedTuple):
    """A model and what it is tested on; the same for everything that is put in the place of its states."""

    model: Nano
    """The model."""
    language: AbstractLanguage
    """Its language."""
    strings: list[list[int]]
    """Test strings."""
    read: Texts
    """The same as the model reads them."""
    states: Float[Tensor, "token d"]
    """Their states."""
    losses: Float[Tensor, " target"]
    """Loss of each of their tokens, nothing being replaced."""
    deep: list[list[int]]
    """Beginnings that leave much open; none where the language has no such."""
    samples: int
    """Strings that are written from nothing."""
    seed: int
    """Seed of what is written."""


def bench_of(arm: LanguageArm, model: Nano, tests: int, samples: int, seed: int) -> Bench:
    """Draw what a model is tested on."""
    language, source = arm.grammar(), random.Random(472_882_027 + seed)
    strings = [language.draw(source, arm.longest) for _ in range(tests)]
    read = texts(strings, arm.longest)
    deep = [language.deep(source) for _ in range(samples)]
    return Bench(
        model,
        language,
        strings,
        read,
        states_of(model, read),
        losses(model, read),
        deep if deep[0] else [],
        samples,
        492_876_847 + seed,
    )


def _valid(bench: Bench, written: Sequence[Sequence[int] | None], name: str, case: str) -> Measured:
    right = sum(one is not None and bench.language.valid(one) for one in written)
    return Measured.within(name, wilson(right, len(written)), case)


def _lengths(bench: Bench, written: Sequence[Sequence[int] | None]) -> Float[Tensor, " string"]:
    """What does not end in time has the length at which it was cut off."""
    cut = bench.model.config.context - 1
    return torch.tensor([float(cut if one is None else len(one)) for one in written])


def of_splice(bench: Bench, splice: Splice | None, case: str) -> list[Measured]:
    """Validity, validity from deep beginnings, nats lost, lengths and unexplained variance; None is the model itself."""
    written = write(bench.model, [[]] * bench.samples, bench.seed, splice)
    plain = write(bench.model, [[]] * bench.samples, bench.seed) if splice is not None else written
    valid, base = (_valid(bench, one, "validity", case) for one in (written, plain))
    own, usual = (_lengths(bench, one) for one in (written, plain))
    found = [
        valid,
        Measured("validity less that of the model", valid.value - base.value, case, n=bench.samples),
        Measured.within("tokens written", mean_interval(own), case),
        Measured("lengths against the model's", ks_two_sample(own, usual).statistic, case, n=bench.samples),
    ]
    if bench.deep:
        deep = write(bench.model, bench.deep, bench.seed + 1, splice)
        found.append(_valid(bench, deep, "deep validity", case))
    if splice is not None:
        more = losses(bench.model, bench.read, splice) - bench.losses
        found += [
            Measured.within("nats lost", mean_interval(more), case),
            Measured("unexplained", fvu(bench.states, splice(bench.states)), case),
        ]
    return found


def of_dictionary(bench: Bench, made: Scaled, case: str) -> list[Measured]:
    """Active latents of a token, and the share of latents that never fire on the test strings."""
    codes = evidence_of(made.sae, made.inputs(bench.states)).codes
    silent = dead_share(fires(codes.indices, codes.values, codes.width))
    return [
        Measured.within("active latents", mean_interval(codes.count()), case),
        Measured("dead latents", silent, case, n=codes.width),
    ]
