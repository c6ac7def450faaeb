"""Planted twins are found, and what only one dictionary has."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import TooFewSamples, UsageError, WidthMismatch
from perimetry.evals.sae import twins
from perimetry.evals.sae.twins import (
    Firing,
    Latents,
    assigned_cosines,
    direction_twins,
    feature_diff,
    firing_twins,
    random_directions,
)
from perimetry.runtime import generator


def rows(n: int, seed: int = 0, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(seed))


def firing(dense: torch.Tensor) -> Firing:
    token, latent = dense.nonzero(as_tuple=True)
    return Firing(token, latent, *dense.shape)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(0, 5))
def test_a_permuted_copy_is_matched_with_one(n: int, seed: int) -> None:
    first = rows(n, seed)
    order = torch.randperm(n, generator=generator(seed + 1))
    found = direction_twins(first, 3 * first[order])
    assert found.likeness.tolist() == pytest.approx([1] * n)
    assert order[found.match].tolist() == list(range(n))
    assert assigned_cosines(first, first[order]).tolist() == pytest.approx([1] * n)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rows(50), rows(30, 1)
    dense = (torch.rand(200, 50, generator=generator(2)) < 0.1, torch.rand(200, 30, generator=generator(3)) < 0.1)
    whole = direction_twins(first, second), firing_twins(*map(firing, dense), least=1)
    monkeypatch.setattr(twins, "BLOCK", 7)
    parts = direction_twins(first, second), firing_twins(*map(firing, dense), least=1)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.likeness, other.likeness)
        assert one.match.tolist() == other.match.tolist()


def test_the_opposite_direction_is_no_twin() -> None:
    assert direction_twins(torch.eye(2)[:1], -torch.eye(2)).likeness.tolist() == [0]
    assert direction_twins(torch.zeros(1, 2), torch.eye(2)).likeness.tolist() == [0]


def test_no_partner_is_given_twice() -> None:
    first = torch.eye(4)[:3]
    second = torch.stack([torch.eye(4)[0], torch.eye(4)[0] + 0.1 * torch.eye(4)[1]])
    assert direction_twins(second, first).match.tolist() == [0, 0]
    assert float(assigned_cosines(first, second).sum()) < float(direction_twins(second, first).likeness.sum())
    assert assigned_cosines(first, second).numel() == 2 == assigned_cosines(second, first).numel()


def test_random_directions_are_what_chance_gives() -> None:
    wide = random_directions(400, 64, 1)
    cosines = direction_twins(random_directions(200, 64, 0), wide).likeness
    # The largest of 400 normal numbers of variance 1 / 64 is expected there.
    assert float(cosines.mean()) == pytest.approx(2.97 / 8, abs=0.03)
    assert torch.equal(wide, random_directions(400, 64, 1))
    assert float(direction_twins(rows(20, d=64), random_directions(20, 64, 0)).likeness.max()) < 0.7


def test_correlation_is_that_of_numpy() -> None:
    one = torch.rand(300, 8, generator=generator(0)) < 0.2
    two = torch.rand(300, 6, generator=generator(1)) < 0.2
    two[:, 4] = one[:, 2] ^ (torch.rand(300, generator=generator(2)) < 0.02)
    found = firing_twins(firing(one), firing(two), least=5)
    table = np.corrcoef(one.double().numpy(), two.double().numpy(), rowvar=False)[:8, 8:]
    assert found.likeness.tolist() == pytest.approx(table.max(1).clip(0).tolist())
    assert found.match.tolist() == table.argmax(1).tolist()
    assert int(found.match[2]) == 4


def test_rare_and_constant_latents_are_nobodys_twin() -> None:
    one = torch.zeros(20, 3, dtype=torch.bool)
    one[0, 0], one[:5, 1], one[:, 2] = True, True, True
    found = firing_twins(firing(one), firing(one), least=2)
    assert found.likeness.tolist() == pytest.approx([math.sqrt(15 / (19 * 5)), 1, 0])


def test_chance_of_firing_keeps_the_rates() -> None:
    dense = torch.rand(500, 20, generator=generator(0)) < 0.1
    one = firing(dense)
    mixed = one.shuffled(3)
    assert torch.equal(mixed.fires(), one.fires())
    assert float(one.rates().sum()) == pytest.approx(float(dense.double().sum(1).mean()))
    assert float(firing_twins(one, mixed, 1).likeness.max()) < 0.4
    assert float(firing_twins(one, one, 1).likeness.min()) == pytest.approx(1)


def test_planted_latents_are_in_the_diff() -> None:
    first = rows(12, d=64)
    order = torch.randperm(12, generator=generator(4))
    rates = torch.linspace(0, 0.5, 12).double()
    same = feature_diff(Latents("a", first, rates), Latents("b", first[order], rates[order]), 0.7)
    assert same.of("only first", "only second", "near") == []
    assert [row.change for row in same.of("shared")] == [0] * 12
    more = torch.cat([first[order], rows(2, 9, d=64)])
    changed = torch.cat([rates[order], torch.tensor([0.3, 0.4]).double()])
    changed[5] += 0.25
    found = feature_diff(Latents("a", first[1:], rates[1:]), Latents("b", more, changed), 0.7)
    gone = int((order == 0).nonzero()[0])
    assert {row.second for row in found.of("only second")} == {f"b/{gone}", "b/12", "b/13"}
    assert found.of("only first") == []
    top = found.of("shared")[0]
    expected = 5 if gone != 5 else None
    assert expected is None or (top.second == "b/5" and top.change == pytest.approx(0.25))
    back = feature_diff(Latents("b", more, changed), Latents("a", first[1:], rates[1:]), 0.7)
    assert {row.first for row in back.of("only first")} == {row.second for row in found.of("only second")}


def test_a_second_copy_is_near_and_not_new() -> None:
    first = torch.eye(3)
    twice = torch.cat([first, first[:1] + 0.1 * first[1:2]])
    found = feature_diff(
        Latents("a", first, torch.zeros(3).double()), Latents("b", twice, torch.zeros(4).double()), 0.7
    )
    assert [(row.kind, row.first, row.second) for row in found.rows if row.kind != "shared"] == [("near", "a/0", "b/3")]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(WidthMismatch, match="one dictionary writes width 16 and the other 8"):
        direction_twins(rows(3), rows(3, d=8))
    with pytest.raises(WidthMismatch, match="one place of one model"):
        assigned_cosines(rows(3), rows(3, d=8))
    one = firing(torch.ones(4, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="4 and 5 tokens were read"):
        firing_twins(one, firing(torch.ones(5, 2, dtype=torch.bool)), 1)
    with pytest.raises(TooFewSamples, match="'a' has 3 latents and 2 rates"):
        feature_diff(
            Latents("a", rows(3), torch.zeros(2).double()), Latents("b", rows(3), torch.zeros(3).double()), 0.7
        )
