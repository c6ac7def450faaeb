"""Selection among bf16 scores gives the entries of the float32 product, whatever the data; without its certificate it does not."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perimetry.runtime import generator
from perimetry.sae.steps import bf16, low
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.native import build
from perimetry.sae.steps.native.int8 import Int8Product, int8_usable
from perimetry.sae.steps.select import AboveCut, BatchTopK, Collector, PreActivations, TopK, Window, collect_dense

pytestmark = pytest.mark.skipif(build.compiled() is None, reason="no C compiler here")

Make = Callable[[PreActivations], list[Collector]]
WIDTH = 512


def cuts(pre: PreActivations) -> torch.Tensor:
    level = float(torch.addmm(pre.b_enc, pre.acts, pre.W_enc.T).quantile(0.97))
    return max(level, 0.05) * (0.9 + 0.2 * torch.rand(WIDTH, generator=generator(9)))


KINDS: dict[str, Make] = {
    "topk": lambda _: [TopK(8)],
    "batchtopk": lambda pre: [BatchTopK(8, pre.acts.shape[0], pre.sample())],
    "one cut": lambda pre: [AboveCut(cuts(pre).mean())],
    "a cut a latent, and its window": lambda pre: [AboveCut(cuts(pre)), Window(cuts(pre), 0.02)],
}


def data(kind: str, seed: int, rows: int = 90, d: int = 24) -> PreActivations:
    draw = generator(seed)
    acts, weights = torch.randn(rows, d, generator=draw), torch.randn(WIDTH, d, generator=draw)
    if kind == "outliers":
        acts[:, 0] += 60
        acts[::7] *= 30
    if kind == "near ties":
        weights = weights[:1] + 1e-4 * weights
        acts = acts.abs()
        weights = weights.abs()
        return PreActivations(acts, weights / weights.norm(dim=1, keepdim=True), torch.zeros(WIDTH))
    if kind == "few positive":
        return PreActivations(acts, weights / weights.norm(dim=1, keepdim=True), torch.full((WIDTH,), -9.0))
    return PreActivations(acts, weights / weights.norm(dim=1, keepdim=True), 0.1 * torch.randn(WIDTH, generator=draw))


def entries(active: Active) -> tuple[torch.Tensor, torch.Tensor]:
    place = (active.rows() * active.width + active.columns).sort()
    return place.values, active.values[place.indices]


def same(found: Active, wanted: Active) -> bool:
    """The same entries; values that differ by rounding alone may change places at the cut."""
    (a, va), (b, vb) = entries(found), entries(wanted)
    if not torch.equal(a, b):
        mine, theirs = set(a.tolist()), set(b.tolist())
        only = [float(v) for p, v in zip(a.tolist(), va.tolist(), strict=True) if p not in theirs]
        other = [float(v) for p, v in zip(b.tolist(), vb.tolist(), strict=True) if p not in mine]
        return len(only) == len(other) <= 2 and all(
            abs(x - y) <= 2e-6 * abs(x) for x, y in zip(only, other, strict=True)
        )
    return bool(((va - vb).abs() <= 1e-5 * vb.abs().clamp(min=1)).all())


@pytest.fixture(autouse=True, params=["int8", "bf16"])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The product that nominates."""
    if request.param == "int8" and not int8_usable():
        pytest.skip("this processor has no int8 product")
    monkeypatch.setattr(low, "SMALLEST", 0)
    monkeypatch.setattr(low, "LOW_ELEMENTS", 32 * WIDTH)
    monkeypatch.setattr(bf16, "LOW_ELEMENTS", 32 * WIDTH)
    monkeypatch.setattr(low, "LISTED", 16)
    monkeypatch.setattr(low, "selection", lambda: request.param)
    return request.param


@pytest.mark.parametrize("kind", ["plain", "outliers", "near ties", "few positive"])
@pytest.mark.parametrize("collector", sorted(KINDS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_entries_are_those_of_the_float32_product(kind: str, collector: str, seed: int) -> None:
    pre = data(kind, seed)
    assert low.low_usable(pre, KINDS[collector](pre))
    found = low.low_collect(pre, KINDS[collector](pre))
    wanted = collect_dense(pre, KINDS[collector](pre))
    if found is None:
        assert max(w.density for w in wanted) > low.TOO_DENSE / 8, "only dense batches are left to the dense product"
        return
    assert all(same(a, b) for a, b in zip(found, wanted, strict=True))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 70), d=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_in_any_shape(rows: int, d: int, seed: int) -> None:
    pre = data("plain", seed, rows, d)
    found = low.low_collect(pre, [TopK(5)])
    assert found is not None
    assert same(found[0], collect_dense(pre, [TopK(5)])[0])


def test_without_the_certificate_near_ties_go_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pre = data("near ties", 0)
    wanted = collect_dense(pre, [TopK(8)])[0]
    monkeypatch.setattr(low, "SIGMAS", -1e9)
    # Int8 sees errors beyond fourfold by itself; what it doubts goes to bfloat16, on processors without it too.
    monkeypatch.setattr(low, "native_bf16", lambda: True)
    found = low.low_collect(pre, [TopK(8)])
    assert found is not None
    assert not same(found[0], wanted)


def test_without_slack_entries_at_the_cut_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pre = data("plain", 1, rows=600)
    make = KINDS["one cut"]
    wanted = collect_dense(pre, make(pre))[0]
    monkeypatch.setattr(low, "low_slack", lambda pre, *_: torch.zeros(pre.acts.shape[0]))
    whole = Int8Product.above
    monkeypatch.setattr(Int8Product, "above", lambda self, cuts, _, limit: whole(self, cuts, 0.0, limit))
    monkeypatch.setattr(low, "_certified", lambda part, *_: part)
    found = low.low_collect(pre, make(pre))
    assert found is not None
    assert not same(found[0], wanted)


def test_what_it_cannot_serve_is_left_alone() -> None:
    pre = data("plain", 0)
    assert not low.low_usable(pre, [TopK(8, among=torch.arange(100))])
    assert not low.low_usable(pre, [TopK(WIDTH)])
    assert not low.low_usable(pre, [TopK(8), AboveCut(torch.tensor(0.5))])
    assert not low.low_usable(pre._replace(acts=pre.acts.double()), [TopK(8)])


def test_dense_batches_are_handed_back() -> None:
    pre = data("plain", 0)
    assert low.low_collect(pre, [AboveCut(torch.tensor(0.0))]) is None
