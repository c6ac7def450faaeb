"""Models of a language, and what is put in the place of their states."""

import random

import torch

from perimetry.labs.formal_languages.grammars import BOS, EOS, FIRST, LANGUAGES, PAD, Expressions
from perimetry.labs.formal_languages.models import (
    LanguageArm,
    losses,
    states_of,
    texts,
    train_language,
    validity,
    write,
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


def test_what_is_written_begins_as_asked_and_is_judged() -> None:
    model = train_language(SMALL, 1, 60)
    begun = [FIRST + 13, FIRST]
    written = write(model, [begun] * 20, 3)
    assert written == write(model, [begun] * 20, 3)
    assert all(one is None or one[:2] == begun for one in written)
    assert validity(Expressions(), [[FIRST], None, [FIRST, FIRST], [FIRST + 10, FIRST]]) == 0.5
