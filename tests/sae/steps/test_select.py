import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.runtime import generator
from perimetry.sae.steps import products
from perimetry.sae.steps.active import Active, flat_nonzero
from perimetry.sae.steps.select import AboveCut, BatchTopK, PreActivations, TopK, Window, collect, top_k_rows


def product(tokens: int, width: int, seed: int, *, rounded: bool = False) -> PreActivations:
    source = generator(seed)
    acts, rows = torch.randn(tokens, 6, generator=source), torch.randn(width, 6, generator=source)
    if rounded:
        acts, rows = acts.round(), rows.round()
    return PreActivations(acts, rows, torch.zeros(width))


def dense(pre: PreActivations) -> torch.Tensor:
    return torch.addmm(pre.b_enc, pre.acts, pre.W_enc.T)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 30),
    width=st.integers(1, 50),
    k=st.integers(1, 50),
    rounded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_batch_top_k_takes_the_largest_of_the_batch(tokens: int, width: int, k: int, rounded: bool, seed: int) -> None:
    pre = product(tokens, width, seed, rounded=rounded)
    found = collect(pre, [BatchTopK(k, tokens, pre.sample())])[0].dense()
    flat = dense(pre).reshape(-1).tolist()
    best = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[: k * tokens]
    expected = torch.zeros(tokens * width)
    for i in best:
        expected[i] = max(0.0, flat[i])
    assert torch.equal(found.reshape(-1), expected)


def test_batch_top_k_does_not_depend_on_its_first_guess() -> None:
    pre = product(64, 40, 1)
    high = torch.full((4, 40), 50.0)
    low = torch.full((4, 40), -50.0)
    results = [collect(pre, [BatchTopK(3, 64, sample)])[0].dense() for sample in (pre.sample(), high, low)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 20),
    width=st.integers(1, 40),
    k=st.integers(1, 40),
    rounded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_top_k_rows_breaks_ties_by_latent(tokens: int, width: int, k: int, rounded: bool, seed: int) -> None:
    pre = dense(product(tokens, width, seed, rounded=rounded))
    values, columns = top_k_rows(pre, min(k, width))
    for t in range(tokens):
        row = pre[t].tolist()
        best = sorted(range(width), key=lambda i: (-row[i], i))[: min(k, width)]
        # Only positive entries carry a value; among those at or below 0 any choice gives the same codes.
        assert {i for i in columns[t].tolist() if row[i] > 0} == {i for i in best if row[i] > 0}
        assert values[t].tolist() == sorted((row[i] for i in columns[t].tolist()), reverse=True)


def test_top_k_among_some_latents_counts_in_their_places() -> None:
    pre = product(10, 30, 2)
    among = torch.tensor([4, 9, 21, 22])
    found = collect(pre, [TopK(2, among)])[0]
    assert found.width == 4
    assert torch.equal(found.dense(), _top(dense(pre)[:, among], 2))


def _top(pre: torch.Tensor, k: int) -> torch.Tensor:
    out = torch.zeros_like(pre)
    best = pre.argsort(dim=1, descending=True, stable=True)[:, :k]
    return out.scatter_(1, best, pre.gather(1, best).relu())


def test_cut_and_window_are_strict() -> None:
    pre = PreActivations(torch.tensor([[1.0]]), torch.tensor([[0.5], [0.6], [-1.0], [0.45]]), torch.zeros(4))
    above = collect(pre, [AboveCut(torch.tensor(0.5))])[0]
    assert above.columns.tolist() == [1]
    assert collect(pre, [AboveCut(torch.tensor(-2.0))])[0].columns.tolist() == [0, 1, 3]
    assert collect(pre, [Window(torch.tensor(0.5), 0.125)])[0].columns.tolist() == [0, 3]


def test_chunks_share_memory_and_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 20 * 7)
    pre = product(50, 20, 3)
    parts = [(start, chunk.clone(), chunk.data_ptr()) for start, chunk in pre.chunks()]
    assert [start for start, _, _ in parts] == list(range(0, 50, 7))
    assert len({pointer for _, _, pointer in parts}) == 1
    torch.testing.assert_close(torch.cat([chunk for _, chunk, _ in parts]), dense(pre))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 20), width=st.integers(1, 30), seed=st.integers(0, 99), density=st.floats(0, 1))
def test_products_equal_dense_ones_both_ways(tokens: int, width: int, seed: int, density: float) -> None:
    source = generator(seed)
    z = torch.randn(tokens, width, generator=source, dtype=torch.float64)
    z = z * (torch.rand(tokens, width, generator=source) < density)
    flat = flat_nonzero(z != 0)
    offsets = torch.nn.functional.pad((z != 0).sum(1).cumsum(0), (1, 0))
    active = Active(offsets, flat % width, z.reshape(-1)[flat], width)
    weights = torch.randn(width, 5, generator=source, dtype=torch.float64)
    upstream = torch.randn(tokens, 5, generator=source, dtype=torch.float64)
    assert torch.equal(active.dense(), z)
    before = products.DENSE_ABOVE
    try:
        for above in (-1.0, 2.0):
            products.DENSE_ABOVE = above
            torch.testing.assert_close(products.decode(active, weights), z @ weights)
            torch.testing.assert_close(products.transposed(active, active.by_column(), upstream), z.T @ upstream)
            expected = (upstream @ weights.T).reshape(-1)[flat]
            torch.testing.assert_close(products.sampled(active, upstream, weights), expected)
            torch.testing.assert_close(products._sampled_by_gather(active, upstream, weights), expected)
    finally:
        products.DENSE_ABOVE = before
    torch.testing.assert_close(active.column_sums(active.values), z.sum(0))
    kept = active.keep(active.values > 0)
    assert torch.equal(kept.dense(), z.clamp(min=0))
