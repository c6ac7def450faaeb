"""Three worlds whose concepts are known.

A: six Gaussians in the plane, three of them inside the hull of the others (arXiv 2503.01822). B: clusters of different
intrinsic dimension (the same). C: a tree of features in 20 dimensions (arXiv 2506.03093).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.runtime import generator

__all__ = ["EPSILONS", "INNER", "OUTER", "Clusters", "Tree", "rotated", "world_a", "world_b", "world_c"]

OUTER, INNER = (0, 2, 4), (1, 3, 5)
"""Clusters of world A that a half-space can tell from the rest, and those that none can."""
CENTRES = 500
"""Seed of the centres of world B, the same for every run."""
EPSILONS = {
    0.0: (0.0, 0.0),
    0.1: (0.0895, 0.3),
    0.2: (0.163, 0.44),
    0.3: (0.226, 0.529),
    0.4: (0.282, 0.594),
    0.5: (0.3335, 0.6467),
    0.6: (0.3825, 0.692),
    0.7: (0.431, 0.733),
    0.8: (0.482, 0.7739),
}
"""Cosine within a group of world C -> how far children, and top nodes, lean towards the others of their group."""
TOP = (0.2,) * 3 + (0.05,) * 8
CHILD = (0.2,) * 3 + (0.4,)


class Clusters(NamedTuple):
    """Gaussian clusters of equal weight, centred and scaled to a mean square norm of their width."""

    centres: Float[Tensor, "cluster d"]
    """Means."""
    deviations: Float[Tensor, "cluster d"]
    """Standard deviation of each coordinate."""

    @classmethod
    def scaled(cls, centres: Tensor, deviations: Tensor) -> "Clusters":
        """Bring to mean 0 and a mean square norm of the width."""
        centres = centres - centres.mean(0)
        size = centres.square().sum(1).mean() + deviations.square().sum(1).mean()
        scale = (centres.shape[1] / size) ** 0.5
        return cls(centres * scale, deviations * scale)

    def draw(self, count: int, source: torch.Generator) -> tuple[Float[Tensor, "point d"], Int[Tensor, " point"]]:
        """Points, and the cluster of each."""
        which = torch.randint(len(self.centres), (count,), generator=source)
        noise = torch.randn(count, self.centres.shape[1], generator=source)
        return self.centres[which] + noise * self.deviations[which], which

    def of(self, cluster: int, count: int, source: torch.Generator) -> Float[Tensor, "point d"]:
        """Points of one cluster."""
        noise = torch.randn(count, self.centres.shape[1], generator=source)
        return self.centres[cluster] + noise * self.deviations[cluster]

    def surprisal(self, points: Float[Tensor, "point d"]) -> Float[Tensor, " point"]:
        """Minus the exact log density of these clusters, in nats: what the best density model of the world would say."""
        parts = []
        for centre, deviation in zip(self.centres.double(), self.deviations.double(), strict=True):
            own = ((points.double() - centre) / deviation).square().sum(1)
            parts.append(-0.5 * own - deviation.log().sum() - 0.5 * points.shape[1] * math.log(2 * math.pi))
        return math.log(len(self.centres)) - torch.stack(parts).logsumexp(0)

    def without(self, cluster: int) -> "Clusters":
        """The other clusters, where they are."""
        kept = [c for c in range(len(self.centres)) if c != cluster]
        return Clusters(self.centres[kept], self.deviations[kept])

    def batches(self, seed: int, batch: int = 512) -> Iterator[Float[Tensor, "point d"]]:
        """Points without end."""
        source = generator(seed)
        while True:
            yield self.draw(batch, source)[0]


def world_a() -> Clusters:
    """Six Gaussians in the plane at every 60 degrees, far and near in turn."""
    angles = torch.arange(6) * (math.pi / 3)
    radii = torch.tensor([1.5, 0.5] * 3)
    centres = radii[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    return Clusters.scaled(centres, torch.full((6, 2), (2**-4.5 / 2 + 1e-6) ** 0.5))


def world_b(
    d_model: int = 32, dims: Sequence[int] = (2, 6, 14, 30), size: float = (0.0469 * 6 / 32) ** 0.5
) -> Clusters:
    """Clusters on the first so many coordinates each, of the same total variance; `size`: of the cube of their centres."""
    centres = size * torch.rand(len(dims), d_model, generator=generator(CENTRES))
    variance = torch.full((len(dims), d_model), 1e-6)
    for row, dim in zip(variance, dims, strict=True):
        row[:dim] += 1 / 50 / dim
    return Clusters.scaled(centres, variance.sqrt())


def rotated(
    world: Clusters, cluster: int, dim: int, degrees: float, noise: Float[Tensor, "point d"]
) -> Float[Tensor, "point d"]:
    """Points of a cluster of world B whose support is turned from its first coordinates towards the last ones.

    `noise`: standard normal, so that several angles can have the same points. The centre and all sizes stay.
    """
    spread = noise * world.deviations[cluster]
    turned = spread.clone()
    angle = math.radians(degrees)
    first, last = spread[:, :dim], spread[:, -dim:]
    turned[:, :dim] = math.cos(angle) * first - math.sin(angle) * last
    turned[:, -dim:] = math.sin(angle) * first + math.cos(angle) * last
    return world.centres[cluster] + turned


class Tree(NamedTuple):
    """20 features: 3 parents, 8 singletons, then the 9 children of the parents. One top node at a time, with one child or none."""

    directions: Float[Tensor, "feature d"]
    """Unit vectors."""

    def batches(self, seed: int, batch: int = 200) -> Iterator[Float[Tensor, "point d"]]:
        """Points without end."""
        source = generator(seed)
        while True:
            top = torch.multinomial(torch.tensor(TOP), batch, replacement=True, generator=source)
            child = torch.multinomial(torch.tensor(CHILD), batch, replacement=True, generator=source)
            active = torch.zeros(batch, 20)
            active[torch.arange(batch), top] = 1
            has = (top < 3) & (child < 3)
            active[has.nonzero()[:, 0], (11 + 3 * top + child)[has]] = 1
            yield active * (1.5 + 0.25 * torch.randn(batch, 20, generator=source)) @ self.directions

    def siblings(self) -> list[range]:
        """The groups within which directions lean towards one another: the top nodes, and each parent's children."""
        return [range(11), *(range(11 + 3 * p, 14 + 3 * p) for p in range(3))]


def world_c(epsilon_children: float, epsilon_top: float, seed: int) -> Tree:
    """A tree whose directions are orthonormal save for how far each leans towards the others of its group."""
    rows = torch.linalg.qr(torch.randn(20, 20, generator=generator(seed))).Q.T
    out = rows.clone()
    for number, group in enumerate(Tree(rows).siblings()):
        epsilon = epsilon_children if number else epsilon_top
        for i in group:
            others = torch.stack([rows[j] for j in group if j != i]).mean(0)
            out[i] = (1 - epsilon) * rows[i] + epsilon * others
    return Tree(out / out.norm(dim=1, keepdim=True))
