"""Ridge regressions from sums, against regressions on the tokens themselves."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from perimetry.runtime import generator
from perimetry.sae.base import Codes
from perimetry.shift.forecast import RIDGES, choose_ridge, fit_ridge, share_below, solve_ridge, standardise

FEATURES, TARGETS = 7, 5


class Sample(NamedTuple):
    g: Tensor
    y: Tensor

    def sums(self) -> tuple[Tensor, Tensor]:
        ones = torch.cat([self.g, torch.ones(len(self.g), 1)], 1).double()
        return ones.T @ ones, self.y.double().T @ ones


def sample(seed: int, tokens: int, noise: float, features: int = FEATURES) -> Sample:
    """Targets that follow from features of very different means and sizes."""
    draw, law = generator(seed), generator(99)
    size = 10.0 ** torch.randint(-2, 3, (features,), generator=law)
    way = torch.randn(features, TARGETS, generator=law)
    raw = torch.randn(tokens, features, generator=draw)
    y = raw @ way + noise * torch.randn(tokens, TARGETS, generator=draw) + 3
    return Sample(raw * size + 5 * size, y)


def by_hand(seen: Sample, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights on standardised features with the mean apart, by least squares on rows that stand for the penalty."""
    g, y = seen.g.double().numpy(), seen.y.double().numpy()
    mean, scale = g.mean(0), g.std(0)
    rows = np.concatenate([(g - mean) / scale, np.sqrt(ridge * len(g)) * np.eye(g.shape[1])])
    wanted = np.concatenate([y - y.mean(0), np.zeros((g.shape[1], y.shape[1]))])
    weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return np.concatenate([weights.T, y.mean(0)[:, None]], 1), mean, scale


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 10.0])
def test_the_fit_equals_least_squares_with_rows_for_the_penalty(ridge: float) -> None:
    seen = sample(0, 300, 0.5)
    found, (weights, mean, scale) = fit_ridge(standardise(*seen.sums()), ridge), by_hand(seen, ridge)
    np.testing.assert_allclose(found.weights.numpy(), weights, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(found.scale.numpy(), scale, rtol=1e-7)


@pytest.mark.parametrize(("tokens", "noise"), [(400, 0.01), (60, 3.0), (40, 30.0), (12, 1.0)])
@pytest.mark.parametrize("units", [None, torch.tensor([1.0, 20.0, 0.1, 1.0, 1.0]).double()])
def test_the_strength_is_the_best_on_other_tokens(tokens: int, noise: float, units: Tensor | None) -> None:
    known, held = sample(1, tokens, noise), sample(2, 100, noise)
    errors = []
    for ridge in RIDGES:
        weights, mean, scale = by_hand(known, ridge)
        forecast = (held.g.double().numpy() - mean) / scale @ weights[:, :-1].T + weights[:, -1]
        missed = held.y.double().numpy() - forecast
        errors.append(np.square(missed / (1 if units is None else units.numpy())).sum())
    assert choose_ridge(standardise(*known.sums()), *held.sums(), units) == RIDGES[int(np.argmin(errors))]


def test_more_noise_wants_more_strength() -> None:
    found = [
        choose_ridge(standardise(*sample(1, 60, noise).sums()), *sample(2, 500, noise).sums())
        for noise in (0.01, 3.0, 300.0)
    ]
    assert found == sorted(found)
    assert found[0] == RIDGES[0]
    assert found[-1] == RIDGES[-1]


def test_a_feature_that_never_changes_is_left_alone() -> None:
    seen = sample(3, 200, 0.5)
    seen.g[:, 2] = 1234.5
    found = fit_ridge(standardise(*seen.sums()), 1e-3)
    assert bool(found.weights.isfinite().all())
    forecast = torch.cat([(seen.g - found.mean) / found.scale, torch.ones(200, 1)], 1).double() @ found.weights.T
    rest = Sample(seen.g[:, [0, 1, 3, 4, 5, 6]], seen.y)
    weights, mean, scale = by_hand(rest, 1e-3)
    wanted = (rest.g.double().numpy() - mean) / scale @ weights[:, :-1].T + weights[:, -1]
    np.testing.assert_allclose(forecast.numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_solve_ridge_solves() -> None:
    square, cross = sample(4, 50, 1.0).sums()
    found = solve_ridge(square, cross, 0.7)
    torch.testing.assert_close(found @ (square + 0.7 * torch.eye(FEATURES + 1).double()), cross)


def test_the_share_equals_a_loop() -> None:
    draw = generator(5)
    features, weights = torch.randn(20, 6, generator=draw), torch.randn(30, 6, generator=draw)
    indices = torch.stack([torch.randperm(30, generator=draw)[:8] for _ in range(20)])
    values = torch.rand(20, 8, generator=draw) * (torch.rand(20, 8, generator=draw) < 0.6)
    values[3] = 0
    wanted = []
    for token in range(20):
        active = [int(f) for f, v in zip(indices[token], values[token], strict=True) if v > 0]
        low = [f for f in active if float(features[token] @ weights[f]) < 0.3]
        wanted.append(len(low) / max(1, len(active)))
    torch.testing.assert_close(share_below(features, weights, Codes(indices, values, 30), 0.3), torch.tensor(wanted))
    assert wanted[3] == 0
    assert 0.2 < sum(wanted) / 20 < 0.9
