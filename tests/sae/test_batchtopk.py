import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, batch, compare, make, mask, worst

from perimetry.sae import BatchTopKSAE
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.sparse import sparse_step


def by_norm(seed: int = 0, k: int = 5, n: int = 40, threshold: float = 0.4) -> BatchTopKSAE:
    state = make("batchtopk", seed, k, n=n).state()
    return BatchTopKSAE.restore(
        state._replace(settings=state.settings | {"select_by_norm": True, "threshold": threshold})
    )


@pytest.mark.parametrize("n_dead", [0, 3, 40])
@pytest.mark.parametrize("tokens", [1, 50])
def test_gradients_of_the_selection_by_norm(n_dead: int, tokens: int) -> None:
    acts = batch(tokens)
    acts[0] = 0
    compare(by_norm(), acts, mask(n_dead))


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(1, 30), n=st.integers(2, 50), k=st.integers(1, 50), seed=st.integers(0, 999))
def test_gradients_of_the_selection_by_norm_in_any_shape(tokens: int, n: int, k: int, seed: int) -> None:
    sae, acts, dead = by_norm(seed, min(k, n), n).double(), batch(tokens, seed).double(), mask(n // 3, n)
    assert worst(sparse_step(sae, acts, OBJECTIVE, dead), dense_step(sae, acts, OBJECTIVE, dead)) < 1e-9


def test_it_ranks_by_what_a_latent_would_write() -> None:
    """p = (2, 1), norms (1, 3): by p the first is chosen, by p times norm the second; its code stays p."""
    sae = by_norm(n=2, k=1)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.copy_(torch.tensor([2.0, 1.0]))
        sae.W_dec.zero_()
        sae.W_dec[:, 0] = torch.tensor([1.0, 3.0])
        sae.b_dec.zero_()
    found = sparse_step(sae, torch.zeros(1, 12), OBJECTIVE)
    assert found.fired.tolist() == [False, True]
    assert found.smallest == 1.0
    sae.threshold = 2.5
    assert sae.encode(torch.zeros(1, 12)).dense().tolist() == [[0.0, 1.0]]


def test_folding_the_scale_keeps_the_codes() -> None:
    sae, acts = by_norm(), batch(30)
    before = sae(acts * 0.25)
    sae.fold_scale(0.25)
    after = sae(acts)
    torch.testing.assert_close(after.codes.dense(), before.codes.dense(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.reconstruction, before.reconstruction * 4, rtol=1e-5, atol=1e-5)


def test_folding_the_norms_gives_a_plain_dictionary_that_writes_the_same() -> None:
    sae, acts = by_norm(), batch(30)
    with torch.no_grad():
        sae.W_dec[3] = 0
    norms = sae.W_dec.detach().norm(dim=1)
    before = sae(acts)
    sae.fold_norms()
    after = sae(acts)
    assert "select_by_norm" not in sae.settings()
    lengths = sae.W_dec.detach().norm(dim=1)
    assert (lengths[norms > 0] - 1).abs().max() < 1e-6
    assert not bool((after.codes.indices[after.codes.values != 0] == 3).any())
    torch.testing.assert_close(after.codes.dense(), before.codes.dense() * norms, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.reconstruction, before.reconstruction, rtol=1e-5, atol=1e-5)


def test_settling_folds_the_norms_and_sets_the_cut() -> None:
    sae, acts = by_norm(), batch(400)
    selected = sparse_step(sae, acts, OBJECTIVE).l0
    sae.settle(acts, 5)
    assert not sae.select_by_norm
    assert float(sae.encode(acts).count().mean()) == pytest.approx(selected) == pytest.approx(5.0)


@pytest.mark.parametrize("name", ["batchtopk", "hierarchical", "matryoshka", "topk"])
def test_another_k_for_one_step(name: str) -> None:
    sae, acts = make(name, k=5), batch(40)
    objective = OBJECTIVE._replace(k=9)
    compare(sae, acts, mask(8), objective)
    wide, plain = sparse_step(sae, acts, objective), sparse_step(make(name, k=9), acts, OBJECTIVE)
    assert wide.l0 == plain.l0 > sparse_step(sae, acts, OBJECTIVE).l0
    assert all(torch.equal(wide.gradients[n], plain.gradients[n]) for n in wide.gradients)
