"""The sparse step against dense autograd in float64, in every corner; and mutants that must not pass."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, AffineSAE
from perimetry.sae.affine import Weights, initial_weights
from perimetry.sae.steps import native, products, sparse
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.base import Objective, StepResult
from perimetry.sae.steps.sparse import sparse_step

D, N = 12, 40
OBJECTIVE = Objective(sparsity=0.1, target_l0=5.0, bandwidth=0.3, aux=1 / 32)


def make(name: str, seed: int = 0, k: int = 5, *, subtract: bool | None = None, n: int = N) -> AffineSAE:
    source = generator(seed)
    base = initial_weights(D, n, seed)
    weights = Weights(
        base.W_enc + 0.2 * torch.randn(n, D, generator=source),
        base.W_dec * (0.5 + torch.rand(n, 1, generator=source)),
        0.1 * torch.randn(n, generator=source),
        0.3 * torch.randn(D, generator=source),
    )
    extras = {"threshold": 0.5 * torch.rand(n, generator=source)} if name == "jumprelu" else {}
    cls = ARCHITECTURES[name]
    assert issubclass(cls, AffineSAE)
    return cls.rebuild(weights, extras=extras, settings={"k": k}, subtract_b_dec=subtract)


def batch(tokens: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(tokens, D, generator=generator(seed))


def mask(n_dead: int, n: int = N) -> torch.Tensor:
    dead = torch.zeros(n, dtype=torch.bool)
    dead[torch.randperm(n, generator=generator(5))[:n_dead]] = True
    return dead


def worst(found: StepResult, wanted: StepResult) -> float:
    """Largest gradient error relative to the largest entry of that gradient."""
    assert found.gradients.keys() == wanted.gradients.keys()
    errors = [0.0]
    for name, reference in wanted.gradients.items():
        size = max(float(reference.abs().max()), 1e-12)
        errors.append(float((found.gradients[name].double() - reference).abs().max()) / size)
    return max(errors)


def compare(sae: AffineSAE, acts: torch.Tensor, dead: torch.Tensor | None, objective: Objective = OBJECTIVE) -> None:
    found = sparse_step(sae, acts, objective, dead)
    wanted = dense_step(copy.deepcopy(sae).double(), acts.double(), objective, dead)
    assert worst(found, wanted) < 1e-5
    for key in ("reconstruction", "sparsity", "aux", "further", "fvu", "l0"):
        assert getattr(found, key) == pytest.approx(getattr(wanted, key), rel=1e-5, abs=1e-7), key
    assert torch.equal(found.fired, wanted.fired)
    assert (found.smallest is None) == (wanted.smallest is None)
    if wanted.smallest is not None:
        assert found.smallest == pytest.approx(wanted.smallest, rel=1e-4, abs=1e-6)


@pytest.fixture(params=["by kernels", "by entries", "by dense chunks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", -1.0 if request.param == "by dense chunks" else 2.0)
    if request.param != "by kernels":
        monkeypatch.setattr(native, "usable", lambda *_: False)
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 16 * N)


OWN = {"crosscoder", "transcoder"}
NAMES = sorted(name for name, cls in ARCHITECTURES.items() if issubclass(cls, AffineSAE) and name not in OWN)
"""Affine dictionaries of one place; those of several are held to the same in test_crosscoder.py and test_transcoder.py."""


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("n_dead", [0, 3, 20, N])
def test_gradients_equal_dense_autograd(name: str, subtract: bool, n_dead: int) -> None:
    compare(make(name, subtract=subtract), batch(50), mask(n_dead))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", NAMES)
def test_one_token(name: str) -> None:
    compare(make(name), batch(1), mask(8))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_and_rows_below_every_cut(name: str) -> None:
    sae = make(name)
    with torch.no_grad():
        sae.b_enc.sub_(0.8)
    acts = batch(30)
    acts[3:9] = 0
    compare(sae, acts, mask(10))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", NAMES)
def test_nothing_fires_at_all(name: str) -> None:
    sae = make(name)
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    found = sparse_step(sae, batch(10), OBJECTIVE, mask(10))
    assert found.smallest is None
    assert found.l0 == 0
    assert not found.fired.any()
    compare(sae, batch(10), mask(10))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["batchtopk", "hierarchical", "matryoshka", "topk"])
def test_ties_go_to_the_lowest_latent(name: str) -> None:
    sae = make(name, k=3)
    with torch.no_grad():
        for row in range(0, N, 2):
            sae.W_enc[row + 1] = sae.W_enc[row]
            sae.b_enc[row + 1] = sae.b_enc[row]
    # Small whole numbers make equal products equal in every order of summation.
    with torch.no_grad():
        sae.W_enc.copy_((sae.W_enc * 4).round())
        sae.b_enc.copy_((sae.b_enc * 4).round())
        sae.b_dec.copy_((sae.b_dec * 4).round())
    acts = (batch(40) * 2).round()
    acts[10:20] = acts[:10]
    compare(sae, acts, mask(12))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["batchtopk", "hierarchical", "matryoshka", "topk"])
def test_k_equal_to_the_width(name: str) -> None:
    compare(make(name, k=N), batch(20), mask(9))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_dead", [0, 6])
def test_forms_of_the_loss(name: str, n_dead: int) -> None:
    for objective in (
        Objective(sparsity=0.02, l0_loss="step", bandwidth=0.1, aux=0.5),
        Objective(sparsity=0.0, aux=0.0),
        Objective(sparsity=1.0, target_l0=2.0, bandwidth=1.0, aux=1.0),
    ):
        compare(make(name), batch(33), mask(n_dead), objective)
        compare(make(name), batch(33), None, objective)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    tokens=st.integers(1, 40),
    n=st.integers(2, 60),
    k=st.integers(1, 60),
    n_dead=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_gradients_in_any_shape(name: str, tokens: int, n: int, k: int, n_dead: int, seed: int) -> None:
    # In float64 both ways, so that no example falls between two roundings of the same cut.
    sae, acts, dead = make(name, seed, min(k, n), n=n).double(), batch(tokens, seed).double(), mask(min(n_dead, n), n)
    assert worst(sparse_step(sae, acts, OBJECTIVE, dead), dense_step(sae, acts, OBJECTIVE, dead)) < 1e-9


def test_threads_do_not_change_a_bit_of_the_segment_sums() -> None:
    active = sparse.collect(make("topk", n=600).pre_activations(batch(300)), [sparse.TopK(8)])[0]
    upstream, before = batch(300, 9), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = products.transposed(active, active.by_column(), upstream)
        torch.set_num_threads(2)
        assert torch.equal(products.transposed(active, active.by_column(), upstream), one)
    finally:
        torch.set_num_threads(before)


def test_mutant_without_the_aux_gradient_to_the_encoder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    original = sparse._Gradients.dead

    def mutant(self: sparse._Gradients, aux: sparse._Aux, among: torch.Tensor) -> None:
        encoder, bias = self.encoder.clone(), self.bias.clone()
        original(self, aux, among)
        self.encoder, self.bias = encoder, bias

    compare(make("topk"), batch(50), mask(20))
    monkeypatch.setattr(sparse._Gradients, "dead", mutant)
    with pytest.raises(AssertionError):
        compare(make("topk"), batch(50), mask(20))


def test_mutant_with_gradients_through_selected_zeros_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, acts = make("topk"), batch(30)
    with torch.no_grad():
        sae.b_enc.sub_(2.0)
    compare(sae, acts, None)

    def keep_all(self: sparse.TopK) -> sparse.Active:
        values, columns = torch.cat(self.values), torch.cat(self.columns)
        tokens, k = values.shape
        return sparse.Active(
            torch.arange(0, tokens * k + 1, k), columns.reshape(-1), values.reshape(-1).relu(), self.width
        )

    monkeypatch.setattr(sparse.TopK, "finish", keep_all)
    with pytest.raises(AssertionError):
        compare(sae, acts, None)


def test_mutant_without_the_encoder_path_of_b_dec_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(self: sparse._Gradients, upstream: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"W_enc": self.encoder, "W_dec": self.decoder, "b_enc": self.bias, "b_dec": upstream.sum(0)}

    compare(make("topk", subtract=True), batch(50), None)
    monkeypatch.setattr(sparse._Gradients, "finish", mutant)
    with pytest.raises(AssertionError):
        compare(make("topk", subtract=True), batch(50), None)


def test_mutant_with_a_stale_column_order_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", 2.0)
    sae = make("topk")
    stale = sparse.collect(sae.pre_activations(batch(50, 1)), [sparse.TopK(5)])[0].by_column()
    compare(sae, batch(50), None)
    monkeypatch.setattr(sparse.Active, "by_column", lambda _: stale)
    with pytest.raises(AssertionError):
        compare(sae, batch(50), None)


def test_aux_is_scaled_by_the_number_of_dead_and_detaches_the_residual() -> None:
    """Worked by hand: one token pair, one dead latent that reads x0 and writes (0, 1)."""
    weights = Weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([-10.0]), torch.zeros(2))
    sae = ARCHITECTURES["topk"]
    assert issubclass(sae, AffineSAE)
    made = sae.rebuild(weights._replace(b_enc=torch.tensor([0.0])), extras={}, settings={"k": 1})
    acts = torch.tensor([[-1.0, 0.0], [-1.0, 2.0]])
    found = sparse_step(made, acts, Objective(aux=1.0), torch.tensor([True]))
    # Nothing fires: the residual is x, its variance 1, the attempt 0, so that the error is mean |x|^2 = 3.
    assert found.aux == pytest.approx(min(1.0, 2 / 2) * 3.0)
    assert found.gradients["b_dec"].tolist() == pytest.approx([2.0, -2.0])


def test_jumprelu_threshold_gradient_by_hand() -> None:
    """x = (1), e = w = (1), theta = .9, window 1: p = 1 fires; x_hat = 1, upstream 0; L0 = 1."""
    weights = Weights(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1), torch.zeros(1))
    cls = ARCHITECTURES["jumprelu"]
    assert issubclass(cls, AffineSAE)
    sae = cls.rebuild(weights, extras={"threshold": torch.tensor([0.9])}, settings={})
    found = sparse_step(sae, torch.ones(1, 1), Objective(sparsity=1.0, target_l0=0.5, bandwidth=1.0))
    # (L0 / .5 - 1)^2 = 1; slope 2 (1) / .5 = 4; the step falls by 1 / width = 1.
    assert found.sparsity == pytest.approx(1.0)
    assert found.gradients["threshold"].tolist() == pytest.approx([-4.0])
