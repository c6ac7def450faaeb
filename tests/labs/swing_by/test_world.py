"""The world: where the clusters lie, and that no training point lies near the composition."""

import pytest
import torch

from perimetry.errors import ConfigError
from perimetry.labs.swing_by.world import WIDE, SimWorld
from perimetry.runtime import generator


def test_clusters_lie_along_orthogonal_concepts() -> None:
    world = SimWorld((1.0, 2.0), (0.01, 0.04), rotated=True, origin=True, seed=3)
    torch.testing.assert_close(world.axes @ world.axes.T, torch.eye(2), atol=1e-6, rtol=0)
    points, cluster = world.train([4000, 4000, 4000], 0)
    assert points.shape == (12_000, WIDE)
    along = world.concepts_of(points)
    for which, centre in enumerate(([1.0, 0.0], [0.0, 2.0], [0.0, 0.0])):
        own = along[cluster == which]
        torch.testing.assert_close(own.mean(0), torch.tensor(centre), atol=0.02, rtol=0)
        torch.testing.assert_close(own.var(0), torch.tensor([0.01, 0.04]), atol=0.004, rtol=0)
    torch.testing.assert_close(points - along @ world.axes, torch.zeros_like(points), atol=1e-5, rtol=0)


def test_strengths_are_the_second_moments_of_the_training_set() -> None:
    world = SimWorld((1.0, 2.0), (0.05, 0.05), origin=True)
    points, _ = world.train([20_000] * 3, 1)
    torch.testing.assert_close(points.square().mean(0), world.strengths(), atol=0.02, rtol=0)
    torch.testing.assert_close(world.strengths(), torch.tensor([0.05 + 1 / 3, 0.05 + 4 / 3]))


def test_truncated_worlds_keep_away_from_the_test_point() -> None:
    wide = {"mu": (1.0, 2.0), "variance": (0.5, 0.5)}
    for truncated, least in ((True, 0.5), (False, 0.0)):
        points, _ = SimWorld(**wide, truncated=truncated).train([3000, 3000], 0)
        nearest = float((points - torch.tensor([1.0, 2.0])).norm(dim=1).min())
        assert (nearest >= 0.5) == truncated
        assert nearest >= least


def test_compositions_add_up() -> None:
    world = SimWorld((1.0, 2.0, 3.0), (1e-6,) * 3, rotated=True)
    point = world.composed(torch.tensor([[True, False, True]]), generator(0))
    torch.testing.assert_close(world.concepts_of(point), torch.tensor([[1.0, 0.0, 3.0]]), atol=0.01, rtol=0)
    torch.testing.assert_close(world.concepts_of(world.test_point()[None])[0], torch.tensor([1.0, 2.0, 3.0]))


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 sizes and 1 variances"):
        SimWorld((1.0, 2.0), (0.1,))
    with pytest.raises(ConfigError, match="1 counts for 2 clusters"):
        SimWorld((1.0, 2.0), (0.1, 0.1)).train([5], 0)
