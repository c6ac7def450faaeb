import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, D, batch, compare, make, mask, worst

from perimetry.errors import ConfigError
from perimetry.sae import HierarchicalTopKSAE
from perimetry.sae.hierarchical import by_rank
from perimetry.sae.steps import products
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.sparse import sparse_step


def hierarchical(seed: int = 0, k: int = 5, n: int = 40) -> HierarchicalTopKSAE:
    return HierarchicalTopKSAE.restore(make("hierarchical", seed, k, n=n).state())


@pytest.mark.parametrize("elements", [2**23, 3 * 5 * D])
@pytest.mark.parametrize("n_dead", [0, 12, 40])
def test_gradients_equal_dense_autograd(elements: int, n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", elements)
    acts = batch(50)
    acts[5:8] = 0
    compare(hierarchical(), acts, mask(n_dead))


def test_fewer_active_than_k() -> None:
    sae = hierarchical(k=7)
    with torch.no_grad():
        sae.b_enc.sub_(2.5)
    found = sparse_step(sae, batch(40), OBJECTIVE)
    assert 0 < found.l0 < 6
    compare(sae, batch(40), mask(5))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 25), n=st.integers(1, 50), k=st.integers(1, 50), seed=st.integers(0, 999))
def test_gradients_in_any_shape(tokens: int, n: int, k: int, seed: int) -> None:
    sae, acts, dead = hierarchical(seed, min(k, n), n).double(), batch(tokens, seed).double(), mask(n // 3, n)
    assert worst(sparse_step(sae, acts, OBJECTIVE, dead), dense_step(sae, acts, OBJECTIVE, dead)) < 1e-9


def test_the_loss_is_the_mean_over_the_prefixes() -> None:
    sae, acts = hierarchical(k=4), batch(20)
    found = sparse_step(sae, acts, OBJECTIVE)
    errors = [float((acts - sae.truncated(j)(acts).reconstruction).square().sum(1).mean()) for j in (1, 2, 3, 4)]
    assert found.reconstruction == pytest.approx(sum(errors) / 4, rel=1e-5)


def test_k_of_one_is_topk() -> None:
    acts = batch(40)
    ours, theirs = (sparse_step(make(name, k=1), acts, OBJECTIVE, mask(9)) for name in ("hierarchical", "topk"))
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
    for name, gradient in theirs.gradients.items():
        torch.testing.assert_close(ours.gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_truncated_shares_the_weights_and_keeps_the_strongest() -> None:
    sae, acts = hierarchical(), batch(30)
    few = sae.truncated(2)
    assert few.W_dec.data_ptr() == sae.W_dec.data_ptr()
    assert torch.equal(few.encode(acts).indices, sae.encode(acts).indices[:, :2])
    for k in (0, 6):
        with pytest.raises(ConfigError, match=f"k = {k} for a dictionary that was trained for every count up to 5"):
            sae.truncated(k)


def test_ranks_break_ties_by_latent_and_pad() -> None:
    active = Active(torch.tensor([0, 3, 3, 4]), torch.tensor([5, 2, 4, 1]), torch.tensor([1.0, 1.0, 3.0, 2.0]), 6)
    ranked = by_rank(active, 4)
    assert ranked.columns.tolist() == [[4, 2, 5, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert ranked.values.tolist() == [[3.0, 1.0, 1.0, 0.0], [0.0] * 4, [2.0, 0.0, 0.0, 0.0]]
    assert ranked.entries.tolist() == [[2, 1, 0, -1], [-1] * 4, [3, -1, -1, -1]]
