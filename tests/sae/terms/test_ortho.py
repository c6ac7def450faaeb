import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.runtime import generator
from perimetry.sae.steps import products
from perimetry.sae.terms.ortho import chunks_of, dense_ortho, ortho_term


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    source = generator(seed)
    free = torch.randn(n, d, generator=source, dtype=torch.float64)
    return free * (0.3 + torch.rand(n, 1, generator=source, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40), d=st.integers(1, 8), chunk=st.integers(2, 50), seed=st.integers(0, 99), dense=st.booleans()
)
def test_gradient_equals_autograd(n: int, d: int, chunk: int, seed: int, dense: bool) -> None:
    decoder = rows(n, d, seed).requires_grad_()
    chunks = chunks_of(n, chunk, seed, step=3)
    loss = dense_ortho(decoder, 0.7, chunks)
    wanted = torch.autograd.grad(loss, decoder)[0] if loss.requires_grad else torch.zeros_like(decoder)
    before = products.DENSE_ABOVE
    try:
        products.DENSE_ABOVE = -1.0 if dense else 2.0
        found = ortho_term(decoder.detach(), 0.7, chunks)
    finally:
        products.DENSE_ABOVE = before
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-9, abs=1e-12)
    torch.testing.assert_close(found.gradient, wanted, rtol=1e-8, atol=1e-10)


def test_by_hand() -> None:
    """Rows at 0, 60 and 90 degrees: nearest squared cosines 1/4, 3/4, 3/4."""
    angles = torch.tensor([0.0, 60.0, 90.0], dtype=torch.float64).deg2rad()
    decoder = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    found = ortho_term(decoder, 1.0, (torch.arange(3),))
    assert found.loss == pytest.approx((0.25 + 0.75 + 0.75) / 3)
    assert ortho_term(torch.eye(4), 1.0, (torch.arange(4),)).loss == 0
    assert ortho_term(torch.ones(4, 2), 0.5, (torch.arange(4),)).loss == pytest.approx(0.5)


def test_a_row_of_zeros_stays_finite() -> None:
    decoder = torch.eye(3)
    decoder[1] = 0
    assert bool(torch.isfinite(ortho_term(decoder, 1.0, (torch.arange(3),)).gradient).all())


def test_chunks_cover_all_and_follow_seed_and_step() -> None:
    one = torch.cat(chunks_of(100, 7, seed=1, step=5))
    assert sorted(one.tolist()) == list(range(100))
    assert torch.equal(one, torch.cat(chunks_of(100, 7, seed=1, step=5)))
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.equal(one, torch.cat(chunks_of(100, 7, seed=seed, step=step)))


def test_rows_that_descend_it_part() -> None:
    decoder = rows(12, 6, 0)
    chunks = (torch.arange(12),)
    first = ortho_term(decoder, 1.0, chunks).loss
    for _ in range(200):
        decoder -= 0.1 * ortho_term(decoder, 1.0, chunks).gradient
    assert ortho_term(decoder, 1.0, chunks).loss < 0.6 * first
