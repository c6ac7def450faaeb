import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, batch, make, mask

from perimetry.runtime import generator
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.sparse import sparse_step
from perimetry.sae.terms.aligned import align, aligned_rows, through_alignment


def pair(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    free, decoder = (torch.randn(n, d, generator=source, dtype=torch.float64) for _ in range(2))
    return free, decoder / decoder.norm(dim=1, keepdim=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20), d=st.integers(1, 9), seed=st.integers(0, 99))
def test_products_are_one_for_any_free_rows(n: int, d: int, seed: int) -> None:
    free, decoder = pair(n, d, seed)
    encoder = free.clone()
    align(encoder, decoder)
    torch.testing.assert_close((encoder * decoder).sum(1), torch.ones(n, dtype=torch.float64))
    again = encoder.clone()
    align(again, decoder)
    torch.testing.assert_close(again, encoder)
    across = free - (free * decoder).sum(1, keepdim=True) * decoder
    torch.testing.assert_close(encoder - decoder, across)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20), d=st.integers(1, 9), seed=st.integers(0, 99), at_the_map=st.booleans())
def test_gradients_equal_autograd_through_the_map(n: int, d: int, seed: int, at_the_map: bool) -> None:
    free, decoder = pair(n, d, seed)
    if at_the_map:
        align(free, decoder)
    towards_e, towards_w = pair(n, d, seed + 1000)
    v, w = free.clone().requires_grad_(), decoder.clone().requires_grad_()
    loss = (aligned_rows(v, w) * towards_e).sum() + (w * towards_w).sum()
    wanted = torch.autograd.grad(loss, (v, w))
    gradients = {"W_enc": towards_e.clone(), "W_dec": towards_w.clone()}
    through_alignment(gradients, free, decoder)
    torch.testing.assert_close(gradients["W_enc"], wanted[0])
    torch.testing.assert_close(gradients["W_dec"], wanted[1])


def test_gradients_of_a_whole_step_by_difference() -> None:
    """Move v and w by a little: the dense loss of the mapped weights changes as the gradients say."""
    sae, acts, dead = make("standard").double(), batch(40).double(), mask(0)
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        align(sae.W_enc, sae.W_dec)
    gradients = sparse_step(sae, acts, OBJECTIVE, dead).gradients
    through_alignment(gradients, sae.W_enc.detach(), sae.W_dec.detach())
    free, decoder = sae.W_enc.detach().clone(), sae.W_dec.detach().clone()
    source = generator(3)
    steps = {n: torch.randn(free.shape, generator=source, dtype=torch.float64) for n in ("W_enc", "W_dec")}
    losses = []
    for size in (1e-6, -1e-6):
        with torch.no_grad():
            sae.W_dec.copy_(decoder + size * steps["W_dec"])
            sae.W_enc.copy_(aligned_rows(free + size * steps["W_enc"], sae.W_dec))
        losses.append(dense_step(sae, acts, OBJECTIVE, dead).loss)
    predicted = sum(float((gradients[n] * steps[n]).sum()) for n in steps)
    assert abs((losses[0] - losses[1]) / 2e-6 - predicted) < 1e-5 * abs(predicted)


def test_it_stays_true_when_a_scale_is_folded_in() -> None:
    sae = make("topk").double()
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        align(sae.W_enc, sae.W_dec)
    sae.fold_scale(0.3)
    torch.testing.assert_close((sae.W_enc * sae.W_dec).sum(1).detach(), torch.ones(40, dtype=torch.float64))
