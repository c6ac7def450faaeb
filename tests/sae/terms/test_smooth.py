"""The contrastive term against autograd, in every architecture, and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import NAMES, OBJECTIVE, batch, compare, make, mask, worst

from perimetry.errors import ConfigError
from perimetry.sae import ARCHITECTURES, AffineSAE
from perimetry.sae.steps import products
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Smooth
from perimetry.sae.steps.sparse import sparse_step
from perimetry.sae.terms.smooth import Contrast, dense_smooth, high_latents

SMOOTH = Smooth(weight=0.7, temperature=0.3, share=0.4)


def entries(codes: torch.Tensor) -> Active:
    rows, columns = codes.nonzero(as_tuple=True)
    offsets = torch.nn.functional.pad(torch.bincount(rows, minlength=codes.shape[0]).cumsum(0), (1, 0))
    return Active(offsets, columns, codes[rows, columns], codes.shape[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_dead", [0, 12])
@pytest.mark.parametrize("elements", [2**23, 16 * 40])
def test_gradients_equal_dense_autograd(name: str, n_dead: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", elements)
    acts = batch(50)
    acts[7:9] = 0
    objective = OBJECTIVE._replace(smooth=SMOOTH)
    compare(make(name), acts, mask(n_dead), objective)
    found = sparse_step(make(name), acts, objective, mask(n_dead))
    without = sparse_step(make(name), acts, OBJECTIVE, mask(n_dead))
    assert found.further > without.further + 0.1
    assert not torch.equal(found.gradients["W_enc"], without.gradients["W_enc"])


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.integers(1, 12),
    width=st.integers(1, 30),
    share=st.floats(0, 1),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_gradient_at_any_entry(pairs: int, width: int, share: float, density: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    shape = (2 * pairs, width)
    codes = torch.rand(shape, generator=source, dtype=torch.float64)
    codes = (codes * (torch.rand(shape, generator=source) < density)).requires_grad_()
    smooth = Smooth(0.5, 0.2, share)
    loss = dense_smooth(codes, smooth)
    (wanted,) = torch.autograd.grad(loss, codes)
    found = Contrast(entries(codes.detach()), smooth)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-9, abs=1e-12)
    everywhere = entries(torch.ones(shape, dtype=torch.float64))
    torch.testing.assert_close(found.towards(everywhere).reshape(shape), wanted, rtol=1e-9, atol=1e-12)
    stop = 2 * pairs - 1
    torch.testing.assert_close(found.block(1, stop), wanted[1:stop, : found.high], rtol=1e-9, atol=1e-12)


def test_two_pairs_by_hand() -> None:
    """Pairs (e0, e0) and (e1, e0): cosines [[1, 1], [0, 0]] at temperature 1."""
    codes = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    by_row = 2 * math.log(2)
    by_column = -math.log(math.e / (math.e + 1)) - math.log(1 / (math.e + 1))
    wanted = (by_row / 2 + by_column / 2) / 2
    assert Contrast(entries(codes), Smooth(1.0, 1.0, 1.0)).loss == pytest.approx(wanted, rel=1e-6)


def test_it_is_lowest_where_pairs_agree() -> None:
    agree = torch.eye(4).repeat_interleave(2, 0)
    mixed = torch.eye(4)[[0, 1, 1, 2, 2, 3, 3, 0]]
    smooth = Smooth(1.0, 0.1, 1.0)
    assert Contrast(entries(agree), smooth).loss < 0.01
    assert Contrast(entries(mixed), smooth).loss > 5


def test_only_the_first_latents_are_read() -> None:
    assert high_latents(10, 0.0) == 1
    sae, acts = make("topk").double(), batch(20).double()
    objective = OBJECTIVE._replace(smooth=SMOOTH._replace(share=0.1))
    found, without = (sparse_step(sae, acts, o) for o in (objective, OBJECTIVE))
    changed = (found.gradients["W_enc"] != without.gradients["W_enc"]).any(1)
    assert bool(changed[:4].any())
    assert not bool(changed[4:].any())


@pytest.mark.parametrize("step", [sparse_step, dense_step])
def test_an_odd_batch_is_refused(step: object) -> None:
    assert callable(step)
    with pytest.raises(ConfigError, match="a batch of 7 tokens cannot be pairs of adjacent ones; give an even batch"):
        step(make("topk"), batch(7), OBJECTIVE._replace(smooth=SMOOTH))


def test_mutant_without_the_normalisation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, acts, objective = make("topk").double(), batch(20).double(), OBJECTIVE._replace(smooth=SMOOTH)
    wanted = dense_step(sae, acts, objective)
    assert worst(sparse_step(sae, acts, objective), wanted) < 1e-9
    original = Contrast.__init__

    def mutant(self: Contrast, active: Active, smooth: Smooth) -> None:
        original(self, active, smooth)
        self._along = torch.zeros_like(self._along)

    monkeypatch.setattr(Contrast, "__init__", mutant)
    assert worst(sparse_step(sae, acts, objective), wanted) > 1e-3


def test_with_the_tanh_form_of_jumprelu() -> None:
    cls = ARCHITECTURES["jumprelu"]
    assert issubclass(cls, AffineSAE)
    base = make("jumprelu")
    sae = cls.restore(base.state()._replace(settings={"subtract_b_dec": False, "mode": "tanh"}))
    acts = batch(24)
    acts[4:6] = 0
    for n_dead in (0, 9):
        compare(sae, acts, mask(n_dead), OBJECTIVE._replace(bandwidth=2.0, smooth=SMOOTH))
