import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.activations.permutation import Permutation, shuffled_ids


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5))
def test_it_is_a_bijection(n, seed, epoch):
    out = Permutation(n, seed, epoch)(torch.arange(n))
    assert torch.equal(out.sort().values, torch.arange(n))


def test_any_entry_is_computed_alone_even_among_a_trillion():
    permutation = Permutation(10**12, 3)
    index = torch.tensor([0, 1, 10**12 - 1, 123456789])
    together = permutation(index)
    assert together.tolist() == [permutation(index[i : i + 1]).item() for i in range(4)]
    assert all(0 <= i < 10**12 for i in together.tolist())


def test_golden_order():
    assert Permutation(10, 0)(torch.arange(10)).tolist() == GOLDEN


GOLDEN = [5, 8, 1, 0, 2, 6, 4, 9, 7, 3]


def test_seed_epoch_and_size_each_give_another_order():
    index = torch.arange(1000)
    orders = [Permutation(1000, s, e)(index) for s, e in ((0, 0), (1, 0), (0, 1))] + [Permutation(1001, 0)(index)]
    for i, one in enumerate(orders):
        assert all((one == other).float().mean() < 0.02 for other in orders[:i])


def test_the_order_looks_random():
    n = 50_000
    out = Permutation(n, 7)(torch.arange(n)).double()
    index = torch.arange(n).double()
    assert abs(torch.corrcoef(torch.stack([index, out]))[0, 1]) < 0.02
    steps = out.diff()
    assert abs(torch.corrcoef(torch.stack([steps[:-1], steps[1:]]))[0, 1] + 0.5) < 0.02
    counts = torch.histc(out[:5000], bins=50, min=0, max=n)
    assert ((counts - 100) ** 2 / 100).sum() < 100


def test_an_empty_permutation_is_a_mistake():
    with pytest.raises(ValueError, match="a permutation of 0 items"):
        Permutation(0, 0)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 200), st.integers(1, 120))
def test_epochs_follow_each_other_without_gap(n, start, count):
    whole = torch.cat([Permutation(n, 5, e)(torch.arange(n)) for e in range((start + count) // n + 1)])
    assert torch.equal(shuffled_ids(n, 5, start, count), whole[start : start + count])
