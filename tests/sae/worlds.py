"""Three worlds whose concepts are known, and a plain training loop: what the geometry tests are made of.

A: six Gaussians in the plane, three of them inside the hull of the others (arXiv 2503.01822). B: clusters of different
intrinsic dimension in 32 dimensions (the same). C: a tree of features in 20 dimensions (arXiv 2506.03093).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from perimetry.runtime import generator
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.dispatch import exact_step


class Clusters(NamedTuple):
    """Gaussian clusters of equal weight, centred and scaled to a mean square norm of their width."""

    centres: Tensor
    deviations: Tensor
    """Standard deviation of each coordinate, a row a cluster."""

    @classmethod
    def scaled(cls, centres: Tensor, deviations: Tensor) -> "Clusters":
        centres = centres - centres.mean(0)
        size = centres.square().sum(1).mean() + deviations.square().sum(1).mean()
        scale = (centres.shape[1] / size) ** 0.5
        return cls(centres * scale, deviations * scale)

    def draw(self, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points, and the cluster of each."""
        which = torch.randint(len(self.centres), (count,), generator=source)
        noise = torch.randn(count, self.centres.shape[1], generator=source)
        return self.centres[which] + noise * self.deviations[which], which

    def batches(self, seed: int, batch: int = 512) -> Iterator[Tensor]:
        source = generator(seed)
        while True:
            yield self.draw(batch, source)[0]


def world_a() -> Clusters:
    angles = torch.arange(6) * (math.pi / 3)
    radii = torch.tensor([1.5, 0.5] * 3)
    centres = radii[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    return Clusters.scaled(centres, torch.full((6, 2), (2**-4.5 / 2 + 1e-6) ** 0.5))


def world_b() -> Clusters:
    d_model, dims = 32, (2, 6, 14, 30)
    centres = (0.0469 * 6 / 32) ** 0.5 * torch.rand(4, d_model, generator=generator(500))
    variance = torch.full((4, d_model), 1e-6)
    for row, dim in zip(variance, dims, strict=True):
        row[:dim] += 1 / 50 / dim
    return Clusters.scaled(centres, variance.sqrt())


class Tree(NamedTuple):
    """20 features: 3 parents, 8 singletons, then the 9 children of the parents."""

    directions: Tensor

    def batches(self, seed: int, batch: int = 200) -> Iterator[Tensor]:
        source = generator(seed)
        while True:
            top = torch.multinomial(torch.tensor([0.2] * 3 + [0.05] * 8), batch, replacement=True, generator=source)
            child = torch.multinomial(torch.tensor([0.2] * 3 + [0.4]), batch, replacement=True, generator=source)
            active = torch.zeros(batch, 20)
            active[torch.arange(batch), top] = 1
            has = (top < 3) & (child < 3)
            active[has.nonzero()[:, 0], (11 + 3 * top + child)[has]] = 1
            yield active * (1.5 + 0.25 * torch.randn(batch, 20, generator=source)) @ self.directions


def world_c(epsilon_children: float, epsilon_top: float, seed: int) -> Tree:
    rows = torch.linalg.qr(torch.randn(20, 20, generator=generator(seed))).Q.T
    out = rows.clone()
    groups = [(range(11), epsilon_top)] + [(range(11 + 3 * p, 14 + 3 * p), epsilon_children) for p in range(3)]
    for group, epsilon in groups:
        for i in group:
            others = torch.stack([rows[j] for j in group if j != i]).mean(0)
            out[i] = (1 - epsilon) * rows[i] + epsilon * others
    return Tree(out / out.norm(dim=1, keepdim=True))


class Loop(NamedTuple):
    """How to train; every step clips the gradient's norm at 1."""

    steps: int
    rate: Callable[[float], float]
    """Learning rate at a share of the steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    rows: Literal["free", "unit", "projected"] = "free"
    """`unit`: decoder rows are brought back to norm 1; `projected`: their gradient's part along themselves is removed first."""
    frozen: tuple[str, ...] = ()
    """Parameters that stay."""
    encoder_unit: float = 1.0
    """Adam moves the encoder and its bias in these units."""


def cosine(share: float) -> float:
    return 1e-4 + (1e-2 - 1e-4) * 0.5 * (1 + math.cos(math.pi * share))


def rise_and_fall(steps: int) -> Callable[[float], float]:
    """3e-2 after 100 steps, and a tenth of that at the end, reached in the last fifth."""
    return lambda share: 3e-2 * min((share * steps + 1) / 100, 1.0, 0.1 + 0.9 * (1 - share) / 0.2)


def train(sae: AbstractSAE, batches: Iterator[Tensor], objective: Objective, loop: Loop) -> None:
    """Plain Adam on the exact gradients."""
    moved = {n: p for n, p in sae.named_parameters() if n not in loop.frozen}
    units = {n: loop.encoder_unit if n in ("W_enc", "b_enc") else 1.0 for n in moved}
    held = {n: (p.detach() / units[n]).requires_grad_() for n, p in moved.items()}
    optimizer = torch.optim.Adam(held.values(), lr=1.0, betas=loop.betas, fused=True)
    for step in range(loop.steps):
        result = exact_step(sae, next(batches), objective)
        if loop.rows == "projected":
            rows, slope = sae.W_dec.detach(), result.gradients["W_dec"]
            slope -= rows * (rows * slope).sum(1, keepdim=True)
        for name, parameter in held.items():
            parameter.grad = result.gradients[name] * units[name]
        torch.nn.utils.clip_grad_norm_(list(held.values()), 1.0)
        optimizer.param_groups[0]["lr"] = loop.rate(step / loop.steps)
        optimizer.step()
        with torch.no_grad():
            if loop.rows != "free":
                held["W_dec"].div_(held["W_dec"].norm(dim=1, keepdim=True))
            for name, parameter in moved.items():
                parameter.copy_(held[name] * units[name])


class Geometry(NamedTuple):
    """What a dictionary makes of clusters."""

    f1: Tensor
    """Mean F1 of the 5 best latents of each cluster."""
    l0: Tensor
    """Mean active count in each cluster."""
    nmse: Tensor
    """Squared error over the variance within each cluster."""
    coactivation: float
    """Mean cosine of the firing rates of two clusters."""


def measure(sae: AbstractSAE, world: Clusters, count: int = 12_000) -> Geometry:
    points, which = world.draw(count, generator(99))
    codes, out = sae(points)
    fires = (codes.dense() > 1e-6).float()
    member = torch.nn.functional.one_hot(which).float().T
    hits, sizes = member @ fires, member.sum(1, keepdim=True)
    best = (2 * hits / (sizes + fires.sum(0))).topk(5, dim=1).values.mean(1)
    rates = torch.nn.functional.normalize(hits / sizes, dim=1)
    clusters = len(world.centres)
    errors = member @ (points - out).square().sum(1)
    spread = torch.stack([(p - p.mean(0)).square().sum() for p in (points[which == c] for c in range(clusters))])
    off = (rates @ rates.T).sum() - clusters
    return Geometry(best, (hits / sizes).sum(1), errors / spread, float(off / (clusters * (clusters - 1))))


class Recovery(NamedTuple):
    """What a dictionary makes of the tree."""

    matches: Tensor
    """Cosine of each feature with the latent matched to it."""
    absorption: float
    """Mean cosine of the latent matched to a child with the child's parent; 0 in truth."""


def recovered(sae: AbstractSAE, tree: Tree) -> Recovery:
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    agree = tree.directions @ rows.T
    features, latents = linear_sum_assignment(-agree.numpy())
    matched = rows[latents[features.argsort()]]
    parents = tree.directions[:3].repeat_interleave(3, 0)
    return Recovery((tree.directions * matched).sum(1), float((matched[11:] * parents).sum(1).mean()))
