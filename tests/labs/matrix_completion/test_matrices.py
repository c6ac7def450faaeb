"""Matrices, what can be known of them, and models that complete them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perimetry.labs.matrix_completion.completer import Completer, CompletionArm, copy_error, looked_at, oddness
from perimetry.labs.matrix_completion.nuclear import errors_of, exact_floor, least_nuclear
from perimetry.labs.matrix_completion.world import Masked, beside, identifiable, masked, matrices
from perimetry.runtime import generator


@pytest.mark.parametrize(("law", "factor"), [("uniform", 1 / 3), ("gaussian", 0.25), ("laplace", 2 * 0.25**2)])
def test_the_variance_of_an_entry_is_that_of_its_factors(law: str, factor: float) -> None:
    for rank in (1, 2):
        found = matrices(4000, 5, 5, rank, generator(1), law=law)
        assert float(found.square().mean()) == pytest.approx(rank * factor**2, rel=0.06)
    full = matrices(4000, 5, 5, 2, generator(1), law="full")
    assert float(full.square().mean()) == pytest.approx(2 / 9, rel=0.05)


def test_ranks_and_decimals() -> None:
    found = matrices(20, 6, 5, 1, generator(2), decimals=9).double()
    assert float(torch.linalg.svdvals(found)[:, 1].max()) < 1e-6
    assert int(torch.linalg.matrix_rank(matrices(1, 6, 5, 1, generator(2), law="full"))) == 5
    rounded = matrices(3, 4, 4, 1, generator(3), decimals=1)
    torch.testing.assert_close(10 * rounded, (10 * rounded).round())


@given(st.integers(0, 2**20), st.floats(0.1, 0.9))
def test_identifiable_is_connected(seed: int, chance: float) -> None:
    shown = torch.rand(1, 4, 5, generator=generator(seed)) >= chance
    group = list(range(9))
    for row, column in shown[0].nonzero().tolist():
        old, new = group[4 + column], group[row]
        group = [new if one == old else one for one in group]
    expected = [[group[row] == group[4 + column] for column in range(5)] for row in range(4)]
    assert identifiable(shown)[0].tolist() == expected


def test_what_is_shown_beside_an_entry() -> None:
    shown = torch.tensor([[[True, False], [True, True]]])
    assert beside(shown)[0].tolist() == [[2.0, 2.0], [3.0, 2.0]]


def test_the_floor_counts_what_nothing_determines() -> None:
    values = torch.tensor([[[0.5, 0.2], [0.3, 0.4]]])
    apart = Masked(values, torch.eye(2).bool()[None])
    assert exact_floor(apart) == (1.0, pytest.approx((0.04 + 0.09) / 2, rel=1e-6))
    together = Masked(values, torch.tensor([[[True, True], [True, False]]]))
    assert exact_floor(together) == (0.0, 0.0)


def test_the_least_nuclear_norm() -> None:
    corner = Masked(torch.tensor([[[1.0, 1.0], [1.0, 9.0]]]), torch.tensor([[[True, True], [True, False]]]))
    assert float(least_nuclear(corner, iterations=3000)[0, 1, 1]) == pytest.approx(1.0, abs=0.01)
    given_ = masked(matrices(30, 5, 5, 1, generator(4)), 0.3, generator(5))
    found = least_nuclear(given_)
    torch.testing.assert_close(found[given_.observed], given_.values.double()[given_.observed])
    plain = torch.where(given_.observed, given_.values.double(), 0.0)
    assert float(torch.linalg.svdvals(found).sum()) < float(torch.linalg.svdvals(plain).sum())
    hidden, every = errors_of(found, given_)
    assert every == pytest.approx(hidden * float((~given_.observed).float().mean()), rel=1e-6)
    assert hidden < float(given_.values[~given_.observed].square().mean())


@pytest.mark.parametrize("inputs", ["linear", "tokens"])
def test_what_is_masked_is_not_looked_at(inputs: str) -> None:
    arm = CompletionArm.model_validate({"inputs": inputs, "width": 16, "layers": 2, "heads": 2, "rows": 3})
    model = Completer(arm, 0).eval()
    given_ = arm.draw(4, generator(6))
    other = torch.where(given_.observed, given_.values, torch.randn(4, 3, 5, generator=generator(7)))
    with torch.no_grad():
        torch.testing.assert_close(model(given_.values, given_.observed), model(other, given_.observed))
        shown = model(other, torch.ones_like(given_.observed))
        assert not torch.allclose(model(other, given_.observed), shown)
        first, last = (model.read(other, given_.observed, layers)[1] for layers in (1, None))
    assert first.shape == last.shape == (4, 15, 16)
    assert not torch.allclose(first, last)
    blocks = [block.linear1.weight for block in model.blocks.layers]
    assert not torch.allclose(blocks[0], blocks[1]), "blocks begin apart"


def test_errors_of_a_model_that_always_says_the_same() -> None:
    arm = CompletionArm(width=8, layers=1, heads=1)
    model = Completer(arm, 0).eval()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.fill_(0.44)
    given_ = arm.draw(50, generator(8))
    assert copy_error(model, given_, 0.44) == pytest.approx(0.0, abs=1e-6)
    assert copy_error(model, given_, -0.24) == pytest.approx(0.68, abs=1e-6)
    assert oddness(model, given_) == pytest.approx(0.88, abs=1e-6)
    look = looked_at(model, given_)
    assert look.size == pytest.approx(0.44, abs=1e-6)
    assert look.hidden == pytest.approx(float((given_.values - 0.44)[~given_.observed].square().mean()), rel=1e-5)
