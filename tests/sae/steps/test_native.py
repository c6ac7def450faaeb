"""Each compiled kernel against the torch operations that it stands for."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.steps import native
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.native import build

pytestmark = pytest.mark.skipif(build.compiled() is None, reason="no C compiler here")


def ragged(rows: int, width: int, seed: int) -> Active:
    draw = generator(seed)
    mask = torch.rand(rows, width, generator=draw) < 0.2
    mask[::3] = False
    offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
    columns = mask.nonzero()[:, 1].contiguous()
    return Active(offsets, columns, torch.randn(columns.shape[0], generator=draw), width)


shapes = given(rows=st.integers(1, 40), width=st.integers(1, 90), d=st.integers(1, 50), seed=st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@shapes
def test_products_of_entries(rows: int, width: int, d: int, seed: int) -> None:
    active, draw = ragged(rows, width, seed), generator(seed + 1)
    weights, upstream = torch.randn(width, d, generator=draw), torch.randn(rows, d, generator=draw)
    dense = active.dense()
    places = active.offsets, active.columns
    torch.testing.assert_close(native.decode(*places, active.values, weights), dense @ weights, rtol=1e-4, atol=1e-4)
    inner = (upstream @ weights.T)[active.rows(), active.columns]
    torch.testing.assert_close(native.sampled(*places, upstream, weights), inner, rtol=1e-4, atol=1e-4)
    if native.halves():
        rounded = (upstream @ weights.half().float().T)[active.rows(), active.columns]
        torch.testing.assert_close(native.sampled(*places, upstream, weights.half()), rounded, rtol=1e-4, atol=1e-4)
    order, row_of, starts = native.by_column(*places, width)
    assert torch.equal(order, active.columns.argsort(stable=True))
    assert torch.equal(row_of, active.rows()[order])
    assert torch.equal(starts.diff(), torch.bincount(active.columns, minlength=width))
    found = native.transposed(starts, order, row_of, active.values, upstream)
    torch.testing.assert_close(found, dense.T @ upstream, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(1, 700), d=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_entries_by_slot(rows: int, width: int, d: int, seed: int) -> None:
    active, draw = ragged(rows, width, seed), generator(seed + 1)
    # Few values, so that many are equal.
    active = active.replace(torch.randint(1, 9, active.values.shape, generator=draw) / 3)
    slots = max(1, int(active.offsets.diff().max()))
    values, columns = native.by_slot(active.offsets, active.columns, active.values, slots)
    dense = active.dense()
    ordered = dense.sort(dim=1, descending=True, stable=True)
    assert torch.equal(values, ordered.values[:, :slots])
    assert torch.equal(columns, ordered.indices[:, :slots].masked_fill(values == 0, 0))
    weights = torch.randn(width, d, generator=draw)
    found = native.decode_slots(columns, values, weights)
    torch.testing.assert_close(found, dense @ weights, rtol=1e-4, atol=1e-4)
    # Slots that are empty in the middle count nothing, wherever they point.
    holes = torch.cat([torch.zeros(rows, 1), values, torch.zeros(rows, 2)], 1)
    odd = torch.nn.functional.pad(columns, (1, 2), value=width - 1)
    torch.testing.assert_close(native.decode_slots(odd, holes, weights), found)


@settings(max_examples=40, deadline=None)
@shapes
def test_the_residual_and_its_products(rows: int, width: int, d: int, seed: int) -> None:
    active, draw = ragged(rows, width, seed), generator(seed + 1)
    weights, target = torch.randn(width, d, generator=draw), torch.randn(rows, d, generator=draw)
    bias = torch.randn(d, generator=draw)
    upstream, delta, error = native.residual(*active[:3], weights, bias, target, -0.25)
    left = target - bias - active.dense() @ weights
    torch.testing.assert_close(upstream, -0.25 * left, rtol=1e-4, atol=1e-4)
    assert error == pytest.approx(float(left.double().square().sum()), rel=1e-4)
    inner = (upstream @ weights.T)[active.rows(), active.columns]
    torch.testing.assert_close(delta, inner, rtol=1e-4, atol=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 9),
    width=st.sampled_from([1, 7, 16, 33, 100, 2048, 2049, 5000]),
    m=st.integers(1, 60),
    rounded=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_candidates_are_the_largest_positive_scores(rows: int, width: int, m: int, rounded: bool, seed: int) -> None:
    scores = torch.randn(rows, width, generator=generator(seed))
    scores = ((scores * 2).round() if rounded else scores).bfloat16()
    found = native.candidates(scores, m)
    for r in range(rows):
        ranked = scores[r].float().sort(descending=True, stable=True)
        best = ranked.indices[: min(m, int((ranked.values > 0).sum()))]
        count = int(found.counts[r])
        assert sorted(found.columns[r, :count].tolist()) == sorted(best.tolist())
        assert torch.equal(found.scores[r, :count], scores[r, found.columns[r, :count].long()])


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 9), width=st.sampled_from([5, 64, 100, 500]), seed=st.integers(0, 10_000))
def test_above_finds_what_reaches_the_cut(rows: int, width: int, seed: int) -> None:
    draw = generator(seed)
    scores = torch.randn(rows, width, generator=draw).bfloat16()
    for cuts in (None, torch.rand(width, generator=draw)):
        # On either side of 0, and 0 itself: a negative score may nominate, too.
        cut = (torch.rand(rows, generator=draw) - 0.5).bfloat16().float().masked_fill(torch.arange(rows) == 1, 0.0)
        offsets, columns, values = native.above(scores, cut, cuts)
        limit = cut[:, None] if cuts is None else cuts + cut[:, None]
        wanted = scores.float() >= limit
        rows_of = torch.repeat_interleave(torch.arange(rows), offsets.diff())
        assert torch.equal(torch.stack([rows_of, columns], 1), wanted.nonzero())
        assert torch.equal(values, scores.float()[wanted])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.sampled_from([1, 5, 64, 100, 500]), st.integers(1, 32), st.booleans(), st.integers(0, 10_000)
)
def test_largest_keeps_the_first_of_equals(rows: int, width: int, k: int, rounded: bool, seed: int) -> None:
    x, k = torch.randn(rows, width, generator=generator(seed)), min(k, width)
    x = x.round() if rounded else x
    wanted = x.sort(dim=1, descending=True, stable=True).indices[:, :k]
    assert torch.equal(native.largest(x, k).sort(dim=1).values, wanted.sort(dim=1).values)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(1, 90), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10_000))
def test_absent_is_what_no_near_list_holds(rows: int, width: int, k: int, slots: int, seed: int) -> None:
    draw = generator(seed)
    lists = torch.randint(width + 1, (11, 6), generator=draw, dtype=torch.int32).sort(1).values
    near, own = torch.randint(11, (rows, k), generator=draw), torch.randint(width, (rows, slots), generator=draw)
    got = native.absent(near, lists, own, width)
    for row in range(rows):
        known = set(lists[near[row]].flatten().tolist())
        assert got[row].tolist() == [column not in known for column in own[row].tolist()]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 700), d=st.integers(1, 30), seed=st.integers(0, 10_000))
def test_spread_is_the_sum_of_squares_about_the_mean(rows: int, d: int, seed: int) -> None:
    acts = torch.randn(rows, d, generator=generator(seed)) + 300
    wide = acts.double()
    assert native.spread(acts) == pytest.approx(float((wide - wide.mean(0)).square().sum()), rel=1e-9, abs=1e-9)


def test_refined_values_are_exact_and_ordered() -> None:
    draw = generator(3)
    acts, weights = torch.randn(50, 32, generator=draw), torch.randn(400, 32, generator=draw)
    bias = torch.randn(400, generator=draw)
    exact = torch.addmm(bias, acts, weights.T)
    low = torch.addmm(bias.bfloat16(), acts.bfloat16(), weights.bfloat16().T)
    refined = native.refine(acts, weights, bias, native.candidates(low, 60), 10, 6.0)
    best = exact.topk(10, dim=1)
    sure = ~refined.doubt
    assert sure.any()
    assert torch.equal(refined.columns[sure], best.indices[sure])
    torch.testing.assert_close(refined.values[sure], best.values[sure], rtol=1e-5, atol=1e-5)


def test_equal_scores_leave_a_doubt_and_too_few_positive_ones_too() -> None:
    acts, weights = torch.ones(1, 4), torch.ones(300, 4)
    low = (acts @ weights.T).bfloat16()
    assert bool(native.refine(acts, weights, torch.zeros(300), native.candidates(low, 20), 10, 6.0).doubt)
    nothing = native.refine(acts, weights, torch.full((300,), -9.0), native.candidates(low - 9, 20), 10, 6.0)
    assert bool(nothing.doubt)
    assert not nothing.values.any()


def test_only_float32_of_the_cpu_row_by_row_is_taken() -> None:
    good = torch.zeros(3, 4)
    assert native.usable(good, good)
    assert not native.usable(good, good.double())
    assert not native.usable(good.T)
    assert not native.usable(good.to("meta"))


def test_they_can_be_switched_off() -> None:
    code = "from perimetry.sae.steps.native.build import compiled; print(compiled())"

    def run(value: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PERIMETRY_KERNELS": value}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )

    assert run("off").stdout.strip() == "None"
    assert "CDLL" in run("auto").stdout
    assert "PERIMETRY_KERNELS is 'maybe'; wanted auto" in run("maybe").stderr


def test_without_a_working_compiler_torch_takes_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    build.compiled.cache_clear()
    try:
        monkeypatch.setenv("CC", "false")
        monkeypatch.setattr(build.shutil, "which", lambda name: "/bin/false" if name == "false" else None)
        assert build.compiled() is None
    finally:
        build.compiled.cache_clear()


def test_a_wrong_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIMETRY_KERNELS", "fast")
    with pytest.raises(ConfigError, match="PERIMETRY_KERNELS is 'fast'; wanted auto"):
        build.wanted()
