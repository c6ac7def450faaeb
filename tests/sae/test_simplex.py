"""The projection onto the simplex against a plain one in NumPy, and the two architectures that are made of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from perimetry.errors import ConfigError, CorruptArtifact, WidthMismatch
from perimetry.runtime import generator
from perimetry.sae.base import SAEState, Start
from perimetry.sae.crowded import project
from perimetry.sae.simplex import Prototypes, inverse_softplus, simplex_cut, simplex_support, sparsemax
from perimetry.sae.spade import PrototypeOptions, SpaDESAE
from perimetry.sae.sparsemax import SparsemaxSAE
from perimetry.sae.steps import native, products
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.select import PreActivations

# Multiples of 1/8 tie often, with each other and with the cut.
SCORES = arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.integers(-24, 24).map(lambda i: i / 8)
)


def by_hand(scores: np.ndarray) -> np.ndarray:
    """One row at a time: the largest number of scores that all stay above their common cut."""
    out = np.zeros_like(scores)
    for row, values in enumerate(scores):
        ranked = sorted(values.tolist(), reverse=True)
        cuts = [(sum(ranked[:size]) - 1) / size for size in range(1, len(ranked) + 1)]
        cut = max((c for c, s in zip(cuts, ranked, strict=True) if s > c), default=0.0)
        out[row] = np.maximum(values - cut, 0)
    return out


def ragged(scores: Tensor) -> Active:
    tokens, width = scores.shape
    offsets = torch.arange(0, tokens * width + 1, width)
    return Active(offsets, torch.arange(width).repeat(tokens), scores.reshape(-1), width)


@settings(max_examples=200, deadline=None)
@given(SCORES)
def test_reference_and_cut_are_those_of_the_plain_projection(scores: np.ndarray) -> None:
    wanted, given_scores = by_hand(scores), torch.from_numpy(scores)
    np.testing.assert_allclose(sparsemax(given_scores).numpy(), wanted, atol=1e-12)
    cut = simplex_cut(ragged(given_scores))
    np.testing.assert_allclose((given_scores - cut[:, None]).clamp(min=0).numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(wanted.sum(1), 1, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(SCORES, st.sampled_from([1.0, 0.01, 30.0]))
def test_no_latent_of_the_support_is_missed_and_hardly_one_is_kept_for_nothing(scores: np.ndarray, size: float) -> None:
    values = torch.from_numpy(scores * size).float()
    tokens, width = values.shape
    pre = PreActivations(torch.eye(tokens), values.T.contiguous(), torch.zeros(width))
    found = simplex_support(pre)
    wanted = by_hand(values.double().numpy())
    kept = np.zeros_like(wanted, dtype=bool)
    kept[found.rows().numpy(), found.columns.numpy()] = True
    assert bool(kept[wanted > 0].all())
    cut = np.where(wanted > 0, values.numpy() - wanted, -np.inf).max(1, keepdims=True)
    assert bool((values.numpy()[kept] > (cut - 1e-3 * size).repeat(width, 1)[kept]).all())


@pytest.mark.parametrize("kernels", [True, False])
@settings(max_examples=200, deadline=None)
@given(scores=SCORES, size=st.sampled_from([1.0, 0.01, 30.0]), shift=st.sampled_from([0.0, 100.0]))
def test_dense_projection_with_kernels_and_without(
    kernels: bool, scores: np.ndarray, size: float, shift: float
) -> None:
    rows = torch.from_numpy(scores * size + shift).float()
    wanted = by_hand(rows.double().numpy())
    codes, mask = torch.empty_like(rows), torch.empty_like(rows)
    with pytest.MonkeyPatch.context() as patch:
        if not kernels:
            patch.setattr(native, "usable", lambda *_: False)
        count = project(rows, codes, mask)
    # Rounding of the scores decides about values this near 0.
    near = np.abs(wanted) < 1e-5
    np.testing.assert_allclose(codes.numpy(), wanted, atol=2e-6)
    assert bool(((codes.numpy() > 0) == (wanted > 0))[~near].all())
    assert torch.equal(mask > 0, codes > 0) or not kernels
    assert torch.equal(count, mask.sum(1))
    assert float(rows.amax()) == 0


def test_projection_hands_nan_on() -> None:
    for rows in (torch.tensor([[0.0, float("nan"), 1.0]]), torch.full((1, 3), float("nan"))):
        codes = torch.empty_like(rows)
        project(rows, codes, torch.empty_like(rows))
        assert bool(codes.isnan().any())


@pytest.mark.parametrize("sharpness", [1e-4, 0.02, 0.3, 5.0])
def test_chunks_and_dense_rounds_change_nothing(sharpness: float, monkeypatch: pytest.MonkeyPatch) -> None:
    source = generator(1)
    acts, rows = torch.randn(70, 16, generator=source), torch.randn(300, 16, generator=source)
    sae = SpaDESAE(Prototypes(rows, rows.clone(), sharpness))
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 300 * 9)
    codes = sae.encode(acts).dense()
    distances = (acts[:, None].double() - rows.double()).square().sum(2)
    wanted = torch.from_numpy(by_hand((-sharpness * distances).numpy()))
    # Scores of 5 x 60 carry seven digits.
    torch.testing.assert_close(codes.double(), wanted, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(codes.sum(1), torch.ones(70), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [1e-8, 1e-3, 1.0, 50.0, 1e4])
def test_softplus_is_undone(value: float) -> None:
    assert float(nn.functional.softplus(inverse_softplus(value).double())) == pytest.approx(value, rel=1e-5)


def test_spade_worked_by_hand() -> None:
    prototypes = torch.tensor([[0.0], [1.0], [4.0]])
    sae = SpaDESAE(Prototypes(prototypes, torch.tensor([[10.0], [20.0], [30.0]]), 0.5))
    # Squared distances 0.0625, 0.5625, 14.0625: scores -0.03125, -0.28125, far below; cut (-0.3125 - 1) / 2.
    out = sae(torch.tensor([[0.25]]))
    assert out.codes.indices.tolist() == [[0, 1]]
    assert out.codes.values[0].tolist() == pytest.approx([0.625, 0.375])
    assert float(out.reconstruction) == pytest.approx(13.75)


def test_products_worked_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    sae = SparsemaxSAE(Prototypes(rows, rows.clone(), 0.5))
    # Scores 0.5, 0.25, -0.5; cut (0.75 - 1) / 2 = -0.125; for twice the token 1, 0.5, -1 and cut 0.25.
    assert sae.encode(torch.tensor([[1.0, 0.5]])).values[0].tolist() == pytest.approx([0.625, 0.375])
    assert sae.encode(torch.tensor([[2.0, 1.0]])).values[0].tolist() == pytest.approx([0.75, 0.25])


def test_equal_prototypes_share_and_the_lower_comes_first() -> None:
    rows = torch.tensor([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0]])
    codes = SpaDESAE(Prototypes(rows, rows.clone(), 2.0)).encode(torch.tensor([[1.0, 0.0]]))
    assert codes.indices.tolist() == [[1, 2]]
    assert codes.values.tolist() == [[0.5, 0.5]]


def start(seed: int = 0, **options: object) -> Start:
    return Start(torch.zeros(12), 40, 4, seed, options=PrototypeOptions.model_validate(options))


def test_how_prototypes_start() -> None:
    toy = SpaDESAE.fresh(start(initialisation="toy"))
    assert torch.equal(toy.W_enc, toy.W_dec)
    assert float(toy.W_enc.detach().square().sum(1).mean()) == pytest.approx(12, rel=0.2)
    assert float(toy.sharpness().detach()) == pytest.approx(1 / 24)
    language = SpaDESAE.fresh(start())
    torch.testing.assert_close(language.W_enc.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(language.W_dec.norm(dim=0), torch.full((12,), 12**0.5))
    assert float(language.sharpness().detach()) == pytest.approx(1 / 48)
    assert float(SparsemaxSAE.fresh(start(init_lambda=0.125)).sharpness().detach()) == pytest.approx(0.125)


def test_what_cannot_be_a_dictionary_is_refused() -> None:
    rows = torch.zeros(3, 2)
    with pytest.raises(WidthMismatch, match=r"W_enc has shape \(3, 2\), W_dec \(4, 2\) wants the same"):
        SpaDESAE(Prototypes(rows, torch.zeros(4, 2), 1.0))
    with pytest.raises(ConfigError, match=r"a sharpness \(lambda\) of 0.0; give a number above 0"):
        SpaDESAE(Prototypes(rows, rows, 0.0))
    state = SpaDESAE.tiny().state()
    with pytest.raises(CorruptArtifact, match=r"missing or unknown here: \['rho'\]; make it again"):
        SpaDESAE.restore(SAEState({n: t for n, t in state.tensors.items() if n != "rho"}, {}))
    with pytest.raises(WidthMismatch, match=r"W_enc has shape \(3, 8\), \(32, 8\) is wanted"):
        SpaDESAE.restore(SAEState({**state.tensors, "W_enc": torch.zeros(3, 8)}, {}))
