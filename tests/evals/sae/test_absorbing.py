"""Absorption on plain tensors: planted cases are found with their exact shares, clean ones are not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evals.sae.planted_letters import JUDGED, LETTERS, PROBES, SPLIT, Planted, planted

from perimetry.errors import NonFinite, TooFewSamples
from perimetry.evals.sae.absorbing import (
    Absorbed,
    LetterResults,
    absorbed_words,
    absorption_by_letter,
    join_codes,
    letter_probes,
)
from perimetry.sae.base import Codes

SEEDS = st.integers(0, 2**31 - 1)


def same(one: LetterResults, two: LetterResults) -> None:
    assert one.names == two.names
    for a, b in zip(one[1:], two[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("absorbed", [1, 3])
def test_a_planted_absorbed_latent_is_found_with_its_share(absorbed: int) -> None:
    found = planted(absorbed).results()
    assert found.names == tuple("abcde")
    assert found.words.tolist() == [JUDGED] * LETTERS
    assert found.full.tolist() == [absorbed] * LETTERS
    assert found.fraction.tolist() == [absorbed] * LETTERS
    assert found.main.tolist() == [1] * LETTERS


def test_a_clean_dictionary_absorbs_nothing() -> None:
    found = planted().results()
    assert found.words.tolist() == [JUDGED] * LETTERS
    assert found.full.tolist() == found.fraction.tolist() == [0] * LETTERS
    assert found.main.tolist() == [1] * LETTERS
    assert found.main_f1.tolist() == [1] * LETTERS


def test_partial_absorption_is_a_fraction_and_not_full() -> None:
    # At 3 of 10 words the main latent keeps .4 of the letter, and the word's own latent writes the other .6.
    found = planted(3, kept=0.4).results()
    assert found.full.tolist() == [0] * LETTERS
    torch.testing.assert_close(found.fraction / found.words, torch.full((LETTERS,), 0.18).double(), atol=0.01, rtol=0)


def test_an_absorber_below_the_least_share_counts_for_nothing() -> None:
    found = planted(3, kept=0.7).results()
    assert found.full.tolist() == found.fraction.tolist() == [0] * LETTERS


def test_a_split_letter_is_splitting_and_not_absorption() -> None:
    found = planted(halves=True).results()
    assert found.main.tolist() == [2] * LETTERS
    assert found.full.tolist() == found.fraction.tolist() == [0] * LETTERS
    assert found.main_f1.tolist() == [1] * LETTERS


def test_the_order_of_the_latents_changes_nothing() -> None:
    case = planted(3, kept=0.2)
    order = torch.randperm(case.codes.width, generator=torch.Generator().manual_seed(1))
    back = order.argsort()
    moved = case._replace(codes=case.codes._replace(indices=back[case.codes.indices]), decoder=case.decoder[order])
    same(case.results(), moved.results())


def test_scaling_latents_and_decoder_inversely_changes_nothing() -> None:
    case = planted(3, kept=0.2)
    scale = torch.logspace(-2, 2, case.codes.width)
    codes = case.codes._replace(values=case.codes.values * scale[case.codes.indices])
    same(case.results(), case._replace(codes=codes, decoder=case.decoder / scale[:, None]).results())


def test_scaling_activations_and_decoder_changes_nothing() -> None:
    case = planted(3, kept=0.2)
    same(case.results(), case._replace(acts=case.acts * 50, decoder=case.decoder * 50).results())


def test_more_slots_change_nothing() -> None:
    case = planted(1)
    halves = [case.codes.select(torch.arange(0, 40)), case.codes.select(torch.arange(40, len(case.acts)))]
    wider = Codes(*(torch.nn.functional.pad(x, (0, 2)) for x in halves[1][:2]), halves[1].width)
    joined = join_codes([halves[0], wider])
    assert joined.indices.shape == (len(case.acts), 5)
    assert torch.equal(joined.dense(), case.codes.dense())
    same(case.results(), case._replace(codes=joined).results())


def test_codes_without_slots_are_joined() -> None:
    empty = Codes(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0), 4)
    assert join_codes([empty]).dense().tolist() == [[0.0] * 4] * 2


# The two measures of a word, against the formulas of the reference on dense arrays


def reference(case: "Words", i: int) -> tuple[bool, float]:
    acts = case.codes.dense()[i].double().numpy()
    cosine, projections = case.cosine.numpy(), acts * case.onto.numpy()
    total, main = float(case.total[i]), case.main.tolist()
    top = int(np.argmax(projections))
    full = all(acts[m] == 0 for m in main) and cosine[top] >= 0.025 and total > 0 and projections[top] / total >= 0.4
    by_main = sum(projections[m] for m in main)
    able = [p for j, p in enumerate(projections) if j not in main and cosine[j] >= 0.1 and p > 0]
    others = sum(sorted(able, reverse=True)[:3])
    if total <= 0 or by_main >= total or others / total < 0.4:
        return full, 0.0
    if by_main <= 0:
        return full, 1.0
    part = min(others, total - by_main)
    return full, part / (part + by_main)


class Words:
    """Random codes of 12 latents in 5 slots, some of them padding."""

    def __init__(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        n, width = 8, 12
        indices = torch.stack([torch.randperm(width, generator=draw)[:5] for _ in range(n)])
        values = torch.rand(n, 5, generator=draw) * (torch.rand(n, 5, generator=draw) < 0.7)
        self.codes = Codes(torch.where(values == 0, 0, indices), values, width)
        self.cosine = torch.rand(width, generator=draw, dtype=torch.float64) * 0.6 - 0.15
        self.onto = self.cosine * (0.5 + torch.rand(width, generator=draw, dtype=torch.float64))
        self.total = torch.rand(n, generator=draw, dtype=torch.float64) * 0.9 - 0.1
        self.main = torch.randperm(width, generator=draw)[: 1 + seed % 3]

    def measured(self) -> Absorbed:
        return absorbed_words(self.codes, self.total, self.onto, self.cosine, self.main)


def test_random_words_hold_every_case() -> None:
    cases = [Words(seed).measured() for seed in range(60)]
    full, fraction = torch.cat([c.full for c in cases]), torch.cat([c.fraction for c in cases])
    assert 10 < int(full.sum()) < len(full) - 10
    for seen in (fraction == 0, fraction == 1, (fraction > 0) & (fraction < 1)):
        assert int(seen.sum()) > 10


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_words_are_judged_as_by_the_reference(seed: int) -> None:
    case = Words(seed)
    found = case.measured()
    for i in range(len(case.total)):
        full, fraction = reference(case, i)
        assert bool(found.full[i]) == full
        assert math.isclose(float(found.fraction[i]), fraction, abs_tol=1e-6)
        assert 0 <= fraction <= 1


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_words_do_not_depend_on_order_or_scale(seed: int) -> None:
    case, draw = Words(seed), torch.Generator().manual_seed(seed)
    order, slots = torch.randperm(12, generator=draw), torch.randperm(5, generator=draw)
    back, size = order.argsort(), torch.tensor([0.5, 2.0, 4.0])[torch.arange(12) % 3]
    values = (case.codes.values * size[case.codes.indices])[:, slots]
    codes = Codes(back[case.codes.indices[:, slots]], values, 12)
    other = absorbed_words(codes, case.total, (case.onto / size)[order], case.cosine[order], back[case.main])
    assert torch.equal(case.measured().full, other.full)
    torch.testing.assert_close(case.measured().fraction, other.fraction, atol=1e-6, rtol=0)


def test_probes_find_the_planted_directions() -> None:
    case = planted()
    probes = case.probes()
    assert probes.letters.tolist() == list(range(LETTERS))
    assert probes.f1.tolist() == [1] * LETTERS
    cosines = torch.nn.functional.normalize(probes.weights, dim=1)[:, :LETTERS]
    assert bool((cosines.diag() > 0.85).all())
    scores = case.acts.double() @ probes.weights.T + probes.biases
    assert torch.equal(scores > 0, case.letters[:, None] == probes.letters)


def test_too_few_words_or_letters_are_refused() -> None:
    case = planted()
    with pytest.raises(
        TooFewSamples, match=r"0 letters have 7 words for each of training, held-out and judged .* wanted 3 letters"
    ):
        letter_probes(case.acts, case.letters, case.parts, PROBES._replace(least_words=7))
    with pytest.raises(TooFewSamples, match=r"5 letters have 5 words .* wanted 6 letters; give more words"):
        letter_probes(case.acts, case.letters, case.parts, PROBES._replace(least_letters=6))
    one = case.letters == 0
    with pytest.raises(TooFewSamples, match=r"1 letters have 5 words .* wanted 2 letters"):
        letter_probes(case.acts[one], case.letters[one], case.parts[one], PROBES._replace(least_letters=1))
    noise = torch.randn(case.acts.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        TooFewSamples, match=r"the probes of \d of 5 letters exceed F1 0.9 .*; wanted 3; this model does not show"
    ):
        letter_probes(noise, case.letters, case.parts, PROBES._replace(least_f1=0.9))


def test_a_letter_that_its_probe_cannot_tell_does_not_qualify() -> None:
    case = planted()
    noise = torch.randn(len(case.acts), case.acts.shape[1], generator=torch.Generator().manual_seed(0))
    acts = torch.where((case.letters >= 4)[:, None], noise, case.acts)
    probes = letter_probes(acts, case.letters, case.parts, PROBES)
    assert set(probes.letters.tolist()) >= {0, 1, 2, 3}
    assert bool((probes.f1 > PROBES.least_f1).all())
    hidden = case.acts.clone()
    hidden[case.letters == 2] = case.acts[case.letters == 3][
        torch.randperm(32, generator=torch.Generator().manual_seed(1))
    ]
    assert 2 not in letter_probes(hidden, case.letters, case.parts, PROBES._replace(least_f1=0.9)).letters.tolist()


def test_what_is_not_finite_and_what_is_silent_is_refused() -> None:
    case = planted()
    with pytest.raises(NonFinite, match="the activations at the words hold NaN or infinity"):
        letter_probes(case.acts / 0, case.letters, case.parts, PROBES)
    with pytest.raises(NonFinite, match="the codes of the words hold NaN or infinity"):
        scored(case, case.codes._replace(values=case.codes.values * torch.nan))
    with pytest.raises(
        TooFewSamples, match=r"none of the 170 latents fires at any of 80 training words; .* belongs to this model"
    ):
        scored(case, case.codes._replace(values=case.codes.values * 0))


def scored(case: Planted, codes: Codes) -> LetterResults:
    return absorption_by_letter(*case[:3], case.probes(), codes, case.decoder, SPLIT)
