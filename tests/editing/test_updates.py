"""Closed forms of editors, against what each of them promises."""

import pytest
import torch
from torch import Tensor

from perimetry.editing.updates import Keys, alphaedit, cost, drawn_like, free_directions, memit, rome
from perimetry.errors import ConfigError
from perimetry.runtime import generator

VALUES, KEYS = 5, 8


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A weight, a value, two keys near each other, moments of ordinary keys; shapes that a transposed update does not fit."""
    draw = generator(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    ordinary = some(200, KEYS) @ some(KEYS, KEYS)
    plain = some(KEYS)
    return some(VALUES, KEYS), some(VALUES), plain, plain + 0.3 * some(KEYS), ordinary.T @ ordinary / 200


def test_rome_is_exact_for_its_key_and_mixed_for_neither(drawn: tuple[Tensor, ...]) -> None:
    weight, value, plain, mean, moments = drawn
    cases: list[tuple[Keys, Tensor]] = [("plain", plain), ("mean", mean)]
    for keys, key in cases:
        update = rome(weight, value, plain, mean, moments, keys)
        torch.testing.assert_close((weight + update) @ key, value, atol=1e-10, rtol=0)
        assert int(torch.linalg.matrix_rank(update)) == 1
    mixed = weight + rome(weight, value, plain, mean, moments)
    torch.testing.assert_close(mixed @ plain, value, atol=1e-10, rtol=0)
    assert float((mixed @ mean - value).norm()) > 1e-3


def test_rome_disturbs_least_of_all_exact_updates(drawn: tuple[Tensor, ...]) -> None:
    weight, value, plain, mean, moments = drawn
    best = rome(weight, value, plain, mean, moments, "plain")
    off = torch.eye(KEYS, dtype=torch.float64) - torch.outer(plain, plain) / plain.square().sum()
    for seed in range(20):
        other = best + 0.1 * torch.randn(VALUES, KEYS, generator=generator(seed), dtype=torch.float64) @ off
        torch.testing.assert_close((weight + other) @ plain, value, atol=1e-10, rtol=0)
        assert cost(other, moments) > cost(best, moments)


def test_mixed_keys_grow_without_bound_as_they_part(drawn: tuple[Tensor, ...]) -> None:
    weight, value, _, mean, moments = drawn
    away = torch.randn(KEYS, generator=generator(7), dtype=torch.float64)
    metric = torch.linalg.solve(moments, mean)
    away = away - mean * (away @ metric) / (mean @ metric)
    sizes = []
    for share in (0.83, 0.3, 0.025):
        plain = share * mean + away
        mixed = rome(weight, value, plain, mean, moments).norm()
        sizes.append(float(mixed / rome(weight, value, plain, mean, moments, "mean").norm()))
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > 10
    with pytest.raises(ConfigError, match="nothing in common"):
        rome(weight, value, away, mean, moments)


def test_memit_is_the_least_of_its_objective(drawn: tuple[Tensor, ...]) -> None:
    weight, _, plain, mean, moments = drawn
    keys = torch.stack([plain, mean, plain - 2 * mean], 1)
    residuals = torch.randn(VALUES, 3, generator=generator(3), dtype=torch.float64)
    best = memit(keys, residuals, moments, 0.7)

    def objective(update: Tensor) -> float:
        return 0.7 * cost(update, moments) + float((update @ keys - residuals).square().sum())

    for seed in range(20):
        step = 1e-3 * torch.randn(VALUES, KEYS, generator=generator(seed), dtype=torch.float64)
        assert objective(best + step) > objective(best)
    one = memit(plain[:, None], (residuals[:, 0] - weight @ plain)[:, None], moments, 1e-9)
    torch.testing.assert_close((weight + one) @ plain, residuals[:, 0], atol=1e-6, rtol=0)


def test_alphaedit_changes_nothing_that_is_in_use(drawn: tuple[Tensor, ...]) -> None:
    _, _, plain, mean, moments = drawn
    values, vectors = torch.linalg.eigh(moments)
    free = free_directions(moments, float(values[:3].sum() / values.sum()) + 1e-9)
    torch.testing.assert_close(free @ free, free)
    assert float(free.trace()) == pytest.approx(3)
    keys = torch.stack([plain, mean], 1)
    residuals = torch.randn(VALUES, 2, generator=generator(4), dtype=torch.float64)
    update = alphaedit(keys, residuals, free, ridge=1e-9)
    assert float((update @ vectors[:, 3:]).abs().max()) < 1e-8
    torch.testing.assert_close(update @ keys, residuals, atol=1e-4, rtol=0)
    earlier = torch.randn(KEYS, 1, generator=generator(5), dtype=torch.float64)
    guarded = alphaedit(keys[:, :1], residuals[:, :1], free, earlier=1e4 * earlier, ridge=1e-9)
    plainly = alphaedit(keys[:, :1], residuals[:, :1], free, ridge=1e-9)
    assert float((guarded @ earlier).norm()) < 1e-3 * float((plainly @ earlier).norm())


def test_a_drawn_update_has_the_norm_and_a_rank_of_one(drawn: tuple[Tensor, ...]) -> None:
    weight = drawn[0]
    found = drawn_like(weight, 3)
    assert float(found.norm()) == pytest.approx(float(weight.norm()))
    assert int(torch.linalg.matrix_rank(found)) == 1
    assert not torch.equal(found, drawn_like(weight, 4))
