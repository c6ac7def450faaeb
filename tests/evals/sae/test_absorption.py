"""Absorption: planted cases are found with their exact shares, clean ones are not; the whole evaluation on a tiny model."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import optimize, sparse
from tests.evals.sae.planted_letters import JUDGED, LETTERS, PROBES, SPLIT, Planted, planted
from torch import Tensor

from perimetry.activations import tiny
from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError, Incompatible, NonFinite, TooFewSamples, WidthMismatch
from perimetry.evals.sae import absorption
from perimetry.evals.sae.absorbing import (
    Absorbed,
    LetterResults,
    absorbed_words,
    absorption_by_letter,
    join_codes,
    letter_probes,
)
from perimetry.evals.sae.absorption import METRICS, Absorption
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.letter_probes import csr_of, f1, fit_probe, l1_weights, main_latents, ranked_latents
from perimetry.evals.sae.letters import WordReads
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, interval
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Codes, Start

SEEDS = st.integers(0, 2**31 - 1)


def same(one: LetterResults, two: LetterResults) -> None:
    assert one.names == two.names
    for a, b in zip(one[1:], two[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


# The planted worlds


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


# Probes


def test_f1() -> None:
    truth = torch.tensor([True, True, False, False])
    assert f1(truth, truth) == 1
    assert f1(~truth, truth) == 0
    assert f1(torch.zeros(4).bool(), torch.zeros(4).bool()) == 0
    assert f1(torch.tensor([True, False, True, False]), truth) == 0.5


def test_l1_weights_are_the_optimum() -> None:
    """The subgradient of each letter's loss holds 0 at the weights, with the bias that is best for them."""
    draw = torch.Generator().manual_seed(2)
    x = (torch.rand(60, 9, generator=draw) * (torch.rand(60, 9, generator=draw) < 0.4)).double() * 3
    truth = torch.stack([x[:, 0] + x[:, 1] > 1.5, x[:, 2] > 1.0], 1)
    l1 = 0.01
    weights = l1_weights(sparse.csr_array(x.numpy()), truth, l1)
    assert 0 < int((weights != 0).sum()) < weights.size
    for i in range(2):
        y = truth[:, i].double()
        share = torch.where(truth[:, i], 0.5 / y.sum(), 0.5 / (1 - y).sum())
        w = torch.tensor(weights[:, i], requires_grad=True)

        def loss(bias: float, w: Tensor = w, y: Tensor = y, share: Tensor = share) -> Tensor:
            scores = x @ w + bias
            return (share * torch.nn.functional.binary_cross_entropy_with_logits(scores, y, reduction="none")).sum()

        bias = float(optimize.minimize_scalar(lambda b: float(loss(b).detach()), tol=1e-12).x)  # pyright: ignore[reportAttributeAccessIssue]
        (slope,) = torch.autograd.grad(loss(bias), w)
        for g, value in zip(slope.tolist(), weights[:, i].tolist(), strict=True):
            assert abs(g) <= l1 * 1.01
            if value:
                assert math.isclose(g, -math.copysign(l1, value), rel_tol=0.01)


def test_latents_are_ranked_by_weight_then_by_difference_and_only_if_they_fire() -> None:
    truth = torch.tensor([[True]] * 10 + [[False]] * 10)
    x = torch.zeros(20, 6)
    x[:10, 4] = 2.0  # writes the letter
    x[:3, 2] = 1e-3  # too weak to be worth its weight, more at the letter
    x[10:13, 1] = 1e-3  # less
    x[[0, 10], 5] = 1e-3  # as much
    codes = Codes(torch.arange(6).expand(20, 6), x, 6)
    (ranked,) = ranked_latents(csr_of(codes, torch.ones(6)), truth, 0.05, 6)
    assert ranked.tolist() == [4, 2, 5, 1]
    (first,) = ranked_latents(csr_of(codes, torch.ones(6)), truth, 0.05, 1)
    assert first.tolist() == [4]


def test_sparse_codes_are_the_codes_times_the_factors() -> None:
    codes = planted(2).codes
    factors = torch.rand(codes.width, generator=torch.Generator().manual_seed(0)).double()
    dense = codes.dense().double() * factors
    torch.testing.assert_close(torch.from_numpy(csr_of(codes, factors).toarray()), dense)


def test_probes_find_the_planted_directions() -> None:
    case = planted()
    probes = case.probes()
    assert probes.letters.tolist() == list(range(LETTERS))
    assert probes.f1.tolist() == [1] * LETTERS
    cosines = torch.nn.functional.normalize(probes.weights, dim=1)[:, :LETTERS]
    assert bool((cosines.diag() > 0.85).all())
    scores = case.acts.double() @ probes.weights.T + probes.biases
    assert torch.equal(scores > 0, case.letters[:, None] == probes.letters)


# Refusals


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


# The whole evaluation


def dictionary(seed: int = 0, d_model: int = 32) -> AbstractSAE:
    return ARCHITECTURES["topk"].fresh(Start(torch.zeros(d_model), 64, 6, seed))


def subject_of(lm: LanguageModel, sae: AbstractSAE | None = None) -> Subject:
    return Subject("tiny", sae or dictionary(), Place(lm, 1, TokenPolicy()))


def close(one: Sequence[Units], two: Sequence[Units]) -> None:
    assert [u.cell for u in one] == [u.cell for u in two]
    for a, b in zip(one, two, strict=True):
        assert a.names == b.names
        torch.testing.assert_close(a.over, b.over, atol=1e-4, rtol=0)


def test_the_whole_evaluation_on_a_tiny_model(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, evaluation = Shelf(tmp_path), Absorption.tiny()
    found = evaluation.measure(subject_of(tiny_lm), shelf)
    by_name = {units.cell.metric: units for units in found}
    assert sorted(by_name) == sorted(METRICS)
    names = by_name["full_absorption"].names
    assert set(names) <= set("bdfkpt")
    assert len(names) >= 2
    assert by_name["letters"].estimate() == len(names)
    for metric in ("full_absorption", "absorption_fraction", "splitting", "main_f1", "probe_f1"):
        assert by_name[metric].names == names
        assert interval(by_name[metric]).n == len(names)
    for metric in ("full_absorption", "absorption_fraction", "main_f1", "probe_f1"):
        assert bool(((by_name[metric].over >= 0) & (by_name[metric].over <= 1)).all())
    assert bool((by_name["probe_f1"].over > 0).all())
    assert bool((by_name["splitting"].over >= 1).all())

    # Another dictionary reads what lies on the shelf, and is judged on the same letters.
    def never(*_: Any, **__: Any) -> WordReads:
        raise AssertionError("the model was read again")

    with monkeypatch.context() as patch:
        patch.setattr(absorption, "read_words", never)
        close(found, evaluation.measure(subject_of(tiny_lm), Shelf(tmp_path)))
        other = evaluation.measure(subject_of(tiny_lm, dictionary(7)), shelf)
        with pytest.raises(AssertionError, match="read again"):
            evaluation.model_copy(update={"seed": 1}).measure(subject_of(tiny_lm), shelf)
    assert {u.names for u in other[:4]} == {names}
    assert other[3].over.tolist() != found[3].over.tolist()


def test_the_batch_changes_nothing(tiny_lm: LanguageModel) -> None:
    one, many = (
        Absorption.tiny().model_copy(update={"batch": batch}).measure(subject_of(tiny_lm), Shelf()) for batch in (7, 50)
    )
    close(one, many)


def test_a_run_that_was_stopped_reads_only_what_is_left(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorption, "PART", 50)
    read, calls = absorption.read_words, []

    def counted(place: Place, prompts: Sequence[str], *rest: Any, **more: Any) -> WordReads:
        if len(calls) == 2:
            calls.append(0)
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return read(place, prompts, *rest, **more)

    monkeypatch.setattr(absorption, "read_words", counted)
    with pytest.raises(KeyboardInterrupt):
        Absorption.tiny().measure(subject_of(tiny_lm), Shelf(tmp_path))
    resumed = Absorption.tiny().measure(subject_of(tiny_lm), Shelf(tmp_path))
    assert calls == [50, 50, 0, 20]
    monkeypatch.undo()
    close(resumed, Absorption.tiny().measure(subject_of(tiny_lm), Shelf()))


def test_a_vocabulary_of_words_is_read_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Absorption.tiny().given
    parts = sorted({"Ġ" + word[:n] for word in words for n in (1, 2, 3)}, key=lambda p: (len(p), p))
    monkeypatch.setattr(tiny, "MERGES", tuple((p[:-1], p[-1]) for p in parts))
    lm = tiny_language_model("llama")
    evaluation = Absorption.tiny().model_copy(update={"given": (), "words": 30})
    shelf = Shelf()
    found = evaluation.measure(subject_of(lm), shelf)
    # Of six letters 20 words of three letters and the four pairs that they begin with, of one token each.
    assert sum(len(held["acts"]) for held in shelf._held.values() if "acts" in held) == 6 * 24
    assert found[0].names == tuple(sorted(found[0].names))
    assert len(found[0].names) >= 2


def test_what_cannot_be_judged_is_refused(tiny_lm: LanguageModel) -> None:
    subject = subject_of(tiny_lm)
    with pytest.raises(TooFewSamples, match="4 training words came for 10 examples a prompt"):
        Absorption().measure(subject, Shelf())
    with pytest.raises(
        TooFewSamples, match=r"0 letters have 5 words .* wanted 15 letters; give more words, or use a model with"
    ):
        Absorption(examples=1).measure(subject, Shelf())
    with pytest.raises(WidthMismatch, match=r"the SAE reads width 8 but layer 1 of 'tiny-llama' gives 32"):
        Absorption.tiny().measure(subject_of(tiny_lm, dictionary(d_model=8)), Shelf())
    with pytest.raises(Incompatible, match="transcoder, which reads two places"):
        Absorption.tiny().measure(subject_of(tiny_lm, ARCHITECTURES["transcoder"].tiny()), Shelf())
    with pytest.raises(ConfigError, match="layer 9 is not in 'tiny-llama'"):
        Absorption.tiny().measure(subject._replace(place=Place(tiny_lm, 9, TokenPolicy())), Shelf())


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"training 0.7 and held_out 0.3 leave no words to measure absorption on"):
        Absorption(training=0.7, held_out=0.3)
    with pytest.raises(ValidationError, match="should match pattern"):
        Absorption(given=("Bad",))


def test_what_stands_beside_the_numbers() -> None:
    assert "1 B parameters" in Absorption.caveat
    assert "16 k latents" in Absorption.caveat
    assert METRICS["full_absorption"].higher is METRICS["absorption_fraction"].higher is False
    assert Absorption.reliable
    assert all(a != b for a, b in pairwise(sorted(METRICS)))


def test_a_probe_weighs_both_classes_the_same() -> None:
    # Ten times the rows of one class leave the probe where it was.
    x = torch.tensor([[0.0], [1.0], [1.0], [2.0]])
    truth = torch.tensor([False, True, False, True])
    more = torch.cat([torch.arange(4), torch.tensor([0, 2] * 9)])
    one, many = fit_probe(x, truth, 0.1), fit_probe(x[more], truth[more], 0.1)
    torch.testing.assert_close(one.weights, many.weights, atol=1e-4, rtol=0)
    assert math.isclose(one.bias, many.bias, abs_tol=1e-4)
    assert math.isclose(float(one.scores(torch.ones(1, 1))), 0, abs_tol=1e-4)


def test_one_latent_more_must_add_more_than_the_rise() -> None:
    # Latent 0 finds 16 of 20 words of the letter, latent 1 two more, latent 2 the last two.
    x = torch.zeros(40, 3)
    x[:16, 0], x[16:18, 1], x[18:20, 2] = 1.0, 1.0, 1.0
    truth = torch.arange(40) < 20
    codes = sparse.csc_array(x.double().numpy())
    steps = [2 * n / (n + 20) for n in (16, 18, 20)]
    for rise, taken in ((0.03, 3), (0.055, 2), (0.06, 1), (0.9, 1)):
        main = main_latents((codes, codes), (truth, truth), torch.arange(3), rise, 1e-3)
        assert main.latents.tolist() == [0, 1, 2][:taken]
        assert math.isclose(main.f1, steps[taken - 1])
    assert 0.03 < steps[2] - steps[1] < 0.055 < steps[1] - steps[0] < 0.06


def test_the_first_latent_is_taken_whatever_its_worth() -> None:
    codes = sparse.csc_array(torch.ones(8, 2).double().numpy())
    truth = torch.tensor([True, False] * 4)
    assert main_latents((codes, codes), (truth, truth), torch.tensor([1, 0]), 0.03, 1e-3).latents.tolist() == [1]
