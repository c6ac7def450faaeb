"""Poolings against loops, names against their grammar."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import UnknownName, UsageError
from perimetry.shift.pooling import POOLINGS, Reference, parse_score, pool, reference_of, score_names

REFERENCE = Reference(100.0, 50.0, 425.0)
LEVELS = {"surprise": "token", "length": "prompt"}
prompts = st.lists(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=25), min_size=1, max_size=6)


def by_hand(scores: list[float], how: str) -> float:
    n = len(scores)
    if how == "mean":
        return sum(scores) / n
    if how == "top10":
        k = max(1, math.ceil(n / 10))
        return sum(sorted(scores, reverse=True)[:k]) / k
    if how == "max":
        w = min(8, n)
        return max(sum(scores[i : i + w]) / w for i in range(n - w + 1))
    height = best = 0.0
    for score in scores:
        height = max(0.0, height + (score - REFERENCE.mean) / REFERENCE.deviation - 0.5)
        best = max(best, height)
    return best / math.log1p(n)


@settings(deadline=None, max_examples=80)
@given(prompts)
def test_poolings_equal_a_loop(rows: list[list[float]]) -> None:
    flat = torch.tensor([score for row in rows for score in row])
    prompt = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(row) for row in rows]))
    for how in POOLINGS:
        wanted = torch.tensor([by_hand(row, how) for row in rows], dtype=torch.float32)
        got = pool(flat, prompt, len(rows), how, REFERENCE)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        # A prompt's number does not depend on its neighbours, to the bit.
        alone = [pool(torch.tensor(row), torch.zeros(len(row), dtype=torch.int64), 1, how, REFERENCE) for row in rows]
        assert torch.equal(got, torch.cat(alone))


def test_the_length_of_a_clean_prompt_hardly_moves_its_cusum() -> None:
    draw = torch.Generator().manual_seed(0)
    means = []
    for length in (30, 300):
        scores = torch.randn(2000 * length, generator=draw)
        prompt = torch.arange(2000).repeat_interleave(length)
        means.append(float(pool(scores, prompt, 2000, "cusum", Reference(1.0, 0.0, 1.0)).mean()))
    assert abs(means[1] / means[0] - 1) < 0.25


def test_reference_merges_like_one_pass() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, generator=draw) * 3 + 1
    merged = reference_of(scores[:300]).merge(reference_of(scores[300:]))
    assert merged.mean == pytest.approx(float(scores.double().mean()), abs=1e-12)
    assert merged.deviation == pytest.approx(float(scores.double().std(correction=0)), rel=1e-12)


def test_a_constant_score_has_a_finite_cusum() -> None:
    flat = torch.full((20,), 3.0)
    got = pool(flat, torch.zeros(20, dtype=torch.int64), 1, "cusum", reference_of(flat))
    assert float(got) == 0.0


def test_names() -> None:
    assert parse_score("surprise", LEVELS) == ("surprise", "mean")
    assert [parse_score(name, LEVELS) for name in score_names(LEVELS)][1:4] == [
        ("surprise", "cusum"),
        ("surprise", "max"),
        ("surprise", "top10"),
    ]
    with pytest.raises(UnknownName, match="unknown detector 'surprize'; the nearest name is 'surprise'"):
        parse_score("surprize.max", LEVELS)
    with pytest.raises(UnknownName, match=r"unknown score 'surprise\.top1'; the nearest name is 'surprise\.top10'"):
        parse_score("surprise.top1", LEVELS)
    with pytest.raises(UnknownName, match=r"unknown score 'length\.max'; the nearest name is 'length'"):
        parse_score("length.max", LEVELS)


def test_wrong_use_is_refused() -> None:
    flat, prompt = torch.ones(3), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UnknownName, match="unknown pooling 'men'; the nearest name is 'mean'"):
        pool(flat, prompt, 1, "men")
    with pytest.raises(UsageError, match="give it a Reference"):
        pool(flat, prompt, 1, "cusum")
