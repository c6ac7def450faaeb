"""Hashes, samples, histograms and contexts against plain computations."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.shift.contexts import TopContexts
from perimetry.shift.features import VALUE_BINS
from perimetry.shift.sketch import BottomK, histogram_quantile, keyed_hash, row_hash


def test_hash_is_uniform_and_keyed() -> None:
    x = torch.arange(100_000)
    share = keyed_hash(x).double() / 2**62
    assert bool((share >= 0).all())
    assert bool((share < 1).all())
    counts = torch.histc(share, 20, 0, 1)
    assert bool(((counts - 5000).abs() < 4.5 * (5000 * 0.95) ** 0.5).all())
    assert torch.unique(keyed_hash(x)).numel() == x.numel()
    rows = torch.stack([x, x.flip(0)], 1)
    assert torch.equal(row_hash(rows, 1), row_hash(rows, 1))
    assert not torch.equal(row_hash(rows, 1), row_hash(rows, 2))
    assert torch.unique(row_hash(rows, 1)).numel() == x.numel()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 60), min_size=0, max_size=80), st.integers(1, 12), st.randoms(use_true_random=False))
def test_bottom_k_keeps_the_smallest_distinct_keys(keys: list[int], k: int, shuffle) -> None:
    def of(part: list[int]) -> BottomK:
        none = torch.zeros(0, dtype=torch.int64)
        out = BottomK(k, none, {"x": none}, {})
        for key in part:
            out.offer(torch.tensor([key]), {"x": torch.tensor([key * 10])})
        return out

    cut = shuffle.randint(0, len(keys))
    merged = of(keys[cut:]).merge(of(keys[:cut]))
    assert merged.keys.tolist() == sorted(set(keys))[:k]
    assert merged.columns["x"].tolist() == [10 * key for key in sorted(set(keys))[:k]]


def test_histogram_quantile_is_within_a_bin() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(20_000, generator=draw).exp()
    values[torch.rand(20_000, generator=draw) < 0.9] = 0
    held = values[values > 0]
    counts = torch.bincount(VALUE_BINS.locate(held), minlength=VALUE_BINS.number)[None]
    zeros = torch.tensor([int((values == 0).sum())])
    for q in (0.5, 0.95, 0.99, 0.999):
        got = float(histogram_quantile(counts, zeros, q, VALUE_BINS))
        exact = float(torch.quantile(values, q))
        assert abs(got - exact) <= 0.19 * exact
    assert float(histogram_quantile(counts, zeros, 0.5, VALUE_BINS)) == 0


contexts = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 4), st.integers(0, 5)), min_size=0, max_size=40
)


@settings(deadline=None, max_examples=60)
@given(contexts, contexts)
def test_top_contexts_equal_a_loop(a: list[tuple[int, int, int, int]], b: list[tuple[int, int, int, int]]) -> None:
    def of(rows: list[tuple[int, int, int, int]]) -> TopContexts:
        out = TopContexts.empty(4)
        for latent, value, passage, token in rows:
            at = torch.tensor([passage]), torch.tensor([token])
            out.update(torch.tensor([[latent]]), torch.tensor([[float(value)]]), *at)
        return out

    one, other = of(a).merge(of(b)), of(b).merge(of(a))
    at_once = TopContexts.empty(4)
    if a + b:
        latent, value, passage, token = torch.tensor(a + b).T
        at_once.update(latent[:, None], value[:, None].float(), passage, token)
    for latent in range(4):
        best: dict[int, tuple[int, int]] = {}
        for f, value, passage, token in a + b:
            if f == latent:
                best[passage] = min(best.get(passage, (0, 0)), (-value, token)) if passage in best else (-value, token)
        wanted = sorted((value, passage, token) for passage, (value, token) in best.items())[:3]
        for got in (one, other, at_once):
            held = got.passage[latent] >= 0
            rows = zip(
                (-got.value[latent][held]).int().tolist(),
                got.passage[latent][held].tolist(),
                got.token[latent][held].tolist(),
                strict=True,
            )
            assert list(rows) == wanted
