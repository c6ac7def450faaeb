"""What a dictionary makes of clusters and of the tree."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from perimetry.axes import Decoder
from perimetry.labs.sae_geometry.fitting import Fitted
from perimetry.labs.sae_geometry.worlds import Clusters, Tree
from perimetry.runtime import generator

__all__ = ["Geometry", "Recovery", "geometry", "recovery"]

ACTIVE = 1e-6
BEST = 5
"""Latents of a cluster whose F1 is averaged."""
PerCluster = Float[Tensor, " cluster"]


class Geometry(NamedTuple):
    """What a dictionary makes of clusters."""

    f1: PerCluster
    """Mean F1 of the 5 best latents of each cluster."""
    l0: PerCluster
    """Mean active count in each cluster."""
    nmse: PerCluster
    """Squared error over the variance within each cluster."""
    coactivation: float
    """Mean cosine of the firing rates of two clusters."""


@torch.no_grad()
def geometry(sae: Fitted, world: Clusters, count: int = 12_000) -> Geometry:
    """Measure on fresh points."""
    points, which = world.draw(count, generator(99))
    codes, out = sae(points)
    fires = (codes.dense() > ACTIVE).float()
    member = functional.one_hot(which, len(world.centres)).float().T
    hits, sizes = member @ fires, member.sum(1, keepdim=True)
    best = (2 * hits / (sizes + fires.sum(0))).topk(min(BEST, fires.shape[1]), dim=1).values.mean(1)
    rates = functional.normalize(hits / sizes, dim=1)
    clusters = len(world.centres)
    errors = member @ (points - out).square().sum(1)
    spread = torch.stack([(p - p.mean(0)).square().sum() for p in (points[which == c] for c in range(clusters))])
    off = (rates @ rates.T).sum() - clusters
    return Geometry(best, (hits / sizes).sum(1), errors / spread, float(off / (clusters * (clusters - 1))))


class Recovery(NamedTuple):
    """What a dictionary makes of the tree."""

    matches: Float[Tensor, " feature"]
    """Cosine of each feature with the latent matched to it."""
    absorption: float
    """Mean cosine of the latent matched to a child with the child's parent; 0 in truth."""
    siblings: float
    """Mean cosine of the latents matched to two of a group, minus that of the two in truth."""


def recovery(decoder: Decoder, tree: Tree) -> Recovery:
    """Match latents to features one to one by cosine (Hungarian method)."""
    rows = functional.normalize(decoder.detach(), dim=1)
    agree = tree.directions @ rows.T
    features, latents = linear_sum_assignment(-agree.numpy())
    matched = rows[latents[features.argsort()]]
    parents = tree.directions[:3].repeat_interleave(3, 0)
    apart: list[Tensor] = []
    for group in tree.siblings():
        pairs = torch.tensor([(i, j) for i in group for j in group if i < j])
        learned = (matched[pairs[:, 0]] * matched[pairs[:, 1]]).sum(1)
        apart.append(learned - (tree.directions[pairs[:, 0]] * tree.directions[pairs[:, 1]]).sum(1))
    return Recovery(
        (tree.directions * matched).sum(1),
        float((matched[11:] * parents).sum(1).mean()),
        float(torch.cat(apart).mean()),
    )
