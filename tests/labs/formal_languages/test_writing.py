"""What is written token by token, against a reading of the whole."""

import torch

from perimetry.labs.formal_languages.grammars import BOS, EOS, FIRST, Expressions
from perimetry.labs.formal_languages.models import SITE
from perimetry.labs.formal_languages.writing import validity, write
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

CONTEXT = 14


def _model() -> Nano:
    shape = NanoConfig(vocab=Expressions().vocab, context=CONTEXT, width=32, heads=2, tied=True, deviation=0.3)
    return Nano(shape, 5).requires_grad_(requires_grad=False)


def _whole(model: Nano, string: list[int], noise: torch.Tensor, begun: int, twist: torch.Tensor) -> None:
    """Each token that was drawn is the one that a reading of all before it gives with the same random number."""
    ids = torch.tensor([[BOS, *string]])

    def replace(block: int, x: torch.Tensor) -> torch.Tensor:
        return x if block != SITE else torch.cat([x[:, :1], x[:, 1:] @ twist], 1)

    levels = model.read(ids, replace=replace).logits[0].double().softmax(-1).cumsum(-1)
    for place, token in enumerate([*string[begun:], EOS], begun):
        low = float(levels[place, token - 1]) if token else 0.0
        assert low - 1e-4 <= float(noise[place]) <= float(levels[place, token]) + 1e-4


def test_what_is_written_is_what_whole_readings_give() -> None:
    model = _model()
    twist = torch.linalg.qr(torch.randn(32, 32, generator=generator(1)))[0]
    for begun, splice in (([], torch.eye(32)), ([FIRST + 13, FIRST], torch.eye(32)), ([FIRST + 16], twist)):
        found = write(model, [begun] * 150, 3, lambda states, turn=splice: states @ turn)
        noise = torch.rand(150, CONTEXT, generator=generator(3))
        ended = [(row, one) for row, one in enumerate(found) if one is not None]
        assert len(ended) > 5
        for row, one in ended:
            assert one[: len(begun)] == begun
            _whole(model, one, noise[row], len(begun), splice)
        assert all(len(one) <= CONTEXT - 2 for _, one in ended)


def test_the_same_seed_writes_the_same_and_nothing_spliced_changes_nothing() -> None:
    model = _model()
    plain = write(model, [[]] * 30, 8)
    assert plain == write(model, [[]] * 30, 8)
    assert plain == write(model, [[]] * 30, 8, lambda states: states)
    assert plain != write(model, [[]] * 30, 9)


def test_validity_counts_what_ends_and_is_given() -> None:
    assert validity(Expressions(), [[FIRST], None, [FIRST, FIRST], [FIRST + 10, FIRST]]) == 0.5
