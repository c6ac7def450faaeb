"""Models of a language, and what is put in the place of their states."""

import random

import torch

from perimetry.labs.formal_languages.grammars import BOS, EOS, LANGUAGES, PAD
from perimetry.labs.formal_languages.models import (
    LanguageArm,
    Rows,
    losses,
    packed,
    read_to_site,
    rest,
    states_of,
    texts,
    train_language,
)
from perimetry.labs.nano import Nano, NanoConfig

SMALL = LanguageArm(language="expr", steps=60, longest=12, strings=400, width=32)


def test_strings_as_a_model_reads_them() -> None:
    found = texts([[5, 6], [7]], 4)
    assert found.ids.tolist() == [[BOS, 5, 6, EOS, PAD, PAD], [BOS, 7, EOS, PAD, PAD, PAD]]
    assert found.inside.tolist() == [
        [False, True, True, False, False, False],
        [False, True, False, False, False, False],
    ]


def test_training_lowers_the_loss_and_only_strings_are_replaced() -> None:
    language = LANGUAGES["expr"]
    source = random.Random(9)
    read = texts([language.draw(source, 12) for _ in range(100)], 12)
    fresh = Nano(NanoConfig(vocab=language.vocab, context=14, width=32, heads=2, tied=True), 0)
    trained = train_language(SMALL, 0, 60)
    before, after = losses(fresh, read), losses(trained, read)
    assert len(before) == int((read.ids[:, 1:] != PAD).sum())
    assert float(after.mean()) < float(before.mean()) - 0.3
    same = losses(trained, read, lambda states: states)
    torch.testing.assert_close(same, after)
    nothing = losses(trained, read, torch.zeros_like)
    assert float(nothing.mean()) > float(after.mean())
    # The first token is foretold at the beginning, which is not part of the string.
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (read.ids[:, 1:] != PAD).sum(1).cumsum(0)[:-1]])
    torch.testing.assert_close(nothing[starts], after[starts])
    assert states_of(trained, read).shape == (int(read.inside.sum()), 32)


def _one_a_row(strings: list[list[int]], room: int) -> Rows:
    every = [packed([string], room) for string in strings]
    return Rows(*(torch.cat([one[i] for one in every]) for i in range(3)))


def test_rows_hold_every_string_once() -> None:
    strings = [[5, 6, 7], [8], [9, 9, 9, 9, 9], [5], [6, 6]]
    rows = packed(strings, 6)
    assert rows.inputs[0].tolist() == [BOS, 5, 6, 7, BOS, 8]
    assert rows.targets[0].tolist() == [5, 6, 7, EOS, 8, EOS]
    assert int((rows.targets == EOS).sum()) == len(strings)
    assert int((rows.targets != PAD).sum()) == sum(len(one) + 1 for one in strings)
    assert len(rows.inputs) < len(strings)
    assert rows.chosen(torch.tensor([0])).owner.tolist() == [rows.owner[0].tolist()]


def test_strings_side_by_side_do_not_see_each_other() -> None:
    language = LANGUAGES["expr"]
    source = random.Random(4)
    strings = [language.draw(source, 12) for _ in range(60)]
    model = Nano(NanoConfig(vocab=language.vocab, context=14, width=32, heads=2, deviation=0.3), 0).requires_grad_(
        False
    )
    read = read_to_site(model, packed(strings, 13))
    alone = read_to_site(model, _one_a_row(strings, 13))
    theirs = states_of(model, texts(strings, 12))
    torch.testing.assert_close(alone.x[alone.inside], theirs)
    mine = read.x[read.inside]
    # First fit changes the order of strings only.
    assert sorted(round(float(v), 3) for v in mine.sum(1)) == sorted(round(float(v), 3) for v in theirs.sum(1))
    logits = rest(model, alone, alone.x[alone.inside])
    whole = model(texts(strings, 12).ids)[texts(strings, 12).inside]
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(rest(model, alone, torch.zeros_like(theirs)), whole, atol=1e-2)
