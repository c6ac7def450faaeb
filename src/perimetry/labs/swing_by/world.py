"""Structured identity mapping: clusters along concept directions to learn from, compositions of them to be tested on.

Cluster p lies at `mu_p e_p`, with a variance for each concept; the target is the input. A composition `v` in {0, 1}^s has its mean
at `sum_p v_p mu_p e_p`; nobody is trained on two concepts at once.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.errors import ConfigError
from perimetry.runtime import generator

__all__ = ["WIDE", "Clusters", "SimWorld"]

WIDE = 64
"""Width of the space that a rotated world lies in."""
MOST_TRIES = 1000


class Clusters(NamedTuple):
    """Points with their clusters."""

    points: Float[Tensor, "point d"]
    """Inputs, which are the targets too."""
    cluster: Int[Tensor, " point"]
    """Concept of each point; the number of concepts stands for the cluster at the origin."""


@final
class SimWorld:
    """Concepts with their sizes and variances."""

    def __init__(
        self,
        mu: tuple[float, ...],
        variance: tuple[float, ...],
        *,
        rotated: bool = False,
        origin: bool = False,
        truncated: bool = False,
        seed: int = 0,
    ) -> None:
        """`rotated`: in 64 dimensions, along the first rows of a random orthogonal matrix; `origin`: one cluster more, at 0;
        `truncated`: no training point within half of the smallest size of the test point. Errors: `ConfigError`."""
        if len(mu) != len(variance) or not mu:
            raise ConfigError(f"{len(mu)} sizes and {len(variance)} variances; give one of each for every concept")
        self.mu, self.variance = torch.tensor(mu), torch.tensor(variance)
        self.origin, self.truncated = origin, truncated
        self.axes = torch.eye(len(mu))
        if rotated:
            square = torch.randn(WIDE, WIDE, generator=generator(seed), dtype=torch.float64)
            q, r = torch.linalg.qr(square)
            self.axes = (q * r.diagonal().sign()).T[: len(mu)].float().contiguous()

    @property
    def concepts(self) -> int:
        """Number of concepts."""
        return self.mu.shape[0]

    @property
    def clusters(self) -> int:
        """Number of clusters that are trained on."""
        return self.concepts + int(self.origin)

    def strengths(self) -> Float[Tensor, " concept"]:
        """E[x_p^2] over the training clusters: variance and square of the size over the number of clusters."""
        return self.variance + self.mu.square() / self.clusters

    def test_point(self) -> Float[Tensor, " d"]:
        """All concepts at once."""
        return self.mu @ self.axes

    def concepts_of(self, points: Float[Tensor, "point d"]) -> Float[Tensor, "point concept"]:
        """Coordinates of points along the concepts."""
        return points @ self.axes.T

    def composed(self, v: Bool[Tensor, "point concept"], draw: torch.Generator) -> Float[Tensor, "point d"]:
        """Noisy points of some compositions."""
        noise = torch.randn(v.shape, generator=draw) * self.variance.sqrt()
        return (v * self.mu + noise) @ self.axes

    def train(self, counts: list[int], seed: int) -> Clusters:
        """So many points of each cluster, in the order of the concepts, the origin last. Errors: `ConfigError`."""
        if len(counts) != self.clusters:
            raise ConfigError(f"{len(counts)} counts for {self.clusters} clusters; give one each")
        draw = generator(seed)
        cluster = torch.repeat_interleave(torch.arange(self.clusters), torch.tensor(counts))
        v = torch.zeros(cluster.shape[0], self.clusters, dtype=torch.bool)
        v[torch.arange(cluster.shape[0]), cluster] = True
        v = v[:, : self.concepts]
        points = self.composed(v, draw)
        for _ in range(MOST_TRIES if self.truncated else 0):
            near = (points - self.test_point()).norm(dim=1) < self.mu.min() / 2
            if not bool(near.any()):
                return Clusters(points, cluster)
            points[near] = self.composed(v[near], draw)
        if self.truncated:
            raise ConfigError("a cluster lies on the test point itself; give smaller variances")
        return Clusters(points, cluster)
