"""Losses of the study, what hardly trained dictionaries lose, and what the causal loss does."""

import random

import pytest
import torch

from perimetry.labs.formal_languages.dictionaries import spliced
from perimetry.labs.formal_languages.fitting import (
    CausalSizes,
    alone,
    averaged,
    causal,
    interpolation,
    released,
    released_weight,
    started,
    undertrained,
)
from perimetry.labs.formal_languages.grammars import LANGUAGES
from perimetry.labs.formal_languages.models import LanguageArm, train_language
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator


def test_the_released_loss_is_the_averaged_one_with_a_weight_that_grows_with_the_batch() -> None:
    for tokens, width in ((32, 6), (128, 12)):
        draw = generator(tokens)
        states, made = torch.randn(2, tokens, width, generator=draw)
        codes = torch.rand(tokens, 20, generator=draw)
        weight = released_weight(1e-3, tokens, width)
        torch.testing.assert_close(
            released(states, made, codes, 1e-3) * width, averaged(states, made, codes, weight), rtol=1e-5, atol=1e-6
        )
    one = torch.tensor([[3.0, 4.0]])
    assert float(averaged(one, torch.zeros(1, 2), torch.tensor([[2.0, 1.0]]), 0.5)) == 26.5
    assert float(released(one, torch.zeros(1, 2), torch.tensor([[2.0, 1.0]]), 0.5)) == 14.0


def test_a_slow_rate_leaves_a_dictionary_where_it_starts() -> None:
    states = torch.randn(1500, 10, generator=generator(0)) @ torch.randn(10, 10, generator=generator(1))
    slow, fast = (undertrained(states, 20, 4, 300, 128, lr, 0) for lr in (1e-5, 1e-2))
    begun = started(10, 20, 4, 0)
    assert float((slow.sae.W_enc - begun.W_enc).detach().abs().max()) <= 300 * 1e-5 * 1.01
    lost = [fvu(states, spliced(made)(states)) for made in (slow, fast)]
    assert lost[1] < 0.3 < lost[0]
    assert int(fast.sae(states).codes.count().max()) <= 4


def test_the_causal_loss_straightens() -> None:
    arm = LanguageArm(language="dyck", steps=80, longest=12, strings=300, width=16)
    model, language = train_language(arm, 0, arm.steps), LANGUAGES["dyck"]
    source = random.Random(2)
    strings = [one for one in (language.draw(source, 12) for _ in range(200)) if len(one) >= 6]
    read = alone(model, strings)
    assert [int(site.inside.sum()) for site in read] == [len(one) for one in strings]
    sizes = CausalSizes(300, 24, 6, 3e-3)
    plain, straight = (causal(model, read, sizes, weight, 0) for weight in (0.0, 30.0))
    errors = [interpolation(model, read, made, 0.2) for made in (plain, straight)]
    assert float(errors[1].error) < 0.7 * float(errors[0].error)
    nowhere = interpolation(model, read, plain, 0.0)
    assert float(nowhere.error) == pytest.approx(0.0, abs=1e-8)
