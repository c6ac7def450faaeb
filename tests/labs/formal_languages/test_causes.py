"""Correlation and causation of latents, where both are known."""

import random

import pytest
import torch

from perimetry.labs.formal_languages.causes import _line, correlations, dense_codes, held, moved_by, truths
from perimetry.labs.formal_languages.dictionaries import SAESizes, dictionary
from perimetry.labs.formal_languages.grammars import LANGUAGES
from perimetry.labs.formal_languages.models import LanguageArm, states_of, texts, train_language
from perimetry.labs.formal_languages.parts import best_f1
from perimetry.runtime import generator


def test_correlations_are_those_of_pearson() -> None:
    draw = generator(0)
    codes, known = torch.randn(300, 4, generator=draw), torch.randn(300, 2, generator=draw)
    codes[:, 3] = 7
    found = correlations(codes, known)
    expected = torch.corrcoef(torch.cat([codes[:, :3], known], 1).T.double())[:3, 3:]
    torch.testing.assert_close(found[:3], expected)
    assert found[3].tolist() == [0, 0]


def test_a_line_and_its_interval() -> None:
    x = torch.tensor([0.0, 0.5, 1.0] * 60, dtype=torch.float64)
    noise = 0.1 * torch.randn(180, generator=generator(1), dtype=torch.float64)
    steep = _line(x, 2 * x + noise)
    assert steep.slope == pytest.approx(2, abs=0.1)
    assert steep.told()
    assert not _line(x, noise).told() or abs(_line(x, noise).slope) < 0.1
    assert not _line(x[:2], noise[:2]).told()


def test_a_held_latent_is_held_and_moves_what_is_written() -> None:
    arm = LanguageArm(language="expr", steps=120, longest=12, strings=600, width=32)
    language, model = arm.grammar(), train_language(arm, 0, arm.steps)
    source = random.Random(3)
    strings = [language.draw(source, 12) for _ in range(300)]
    states = states_of(model, texts(strings, 12))
    known = truths(language, strings)
    assert len(known) == len(states)
    made = dictionary(states, SAESizes(24, 200, 128), 0, k=4).sae
    codes = dense_codes(made, states)
    far = held(made, 5, 3.0)(states) - held(made, 5, 0.0)(states)
    torch.testing.assert_close(far, (3 * made.scale * made.sae.W_dec[5]).expand_as(far), atol=1e-4, rtol=1e-3)
    latent = int(correlations(codes, known)[:, 0].abs().argmax())
    found = moved_by(model, language, made, latent, float(codes[:, latent].max()), 0, 40, 7)
    assert found.low <= found.slope <= found.high
    assert found == moved_by(model, language, made, latent, float(codes[:, latent].max()), 0, 40, 7)
    assert LANGUAGES["expr"].variables[0] == "pending operands"


def test_the_best_latent_of_a_concept_by_hand() -> None:
    active = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1]]) > 0
    member = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0]]) > 0
    # The first latent is the first concept; of the second, with one token, it says two.
    assert best_f1(active, member).tolist() == pytest.approx([1.0, 2 / 3])
    assert best_f1(torch.zeros(4, 3, dtype=torch.bool), member).tolist() == [0, 0]
