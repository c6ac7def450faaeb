"""How far states have the shape of a graph, how far predictions follow it, and what the walk alone would give."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.labs.graph_tracing.world import Graph

__all__ = ["Following", "Shape", "class_means", "copied", "counted", "following", "shape_of"]

States = Float[Tensor, "node d"]
PerStep = Float[Tensor, "walk move"]
"""A move a step but the last."""


class Shape(NamedTuple):
    """How far the states of the nodes have the shape of a graph."""

    energy: float
    """tr(X' L X) / tr(X' X) of centred states: from the smallest eigenvalue above 0 (smooth over the graph) to the largest; states
    drawn at random give 2 E / (n - 1)."""
    plane: float
    """Correlation of distances in the plane of the two largest components with those in the graph."""
    parity: float
    """Share of the variance that separates the two colours of a bipartite graph; 0 where it is none."""


def shape_of(states: States, graph: Graph) -> Shape:
    """Measure states, one a node."""
    x = states.double() - states.double().mean(0)
    whole = x.square().sum().clamp_min(1e-300)
    energy = (x * (graph.laplacian() @ x)).sum() / whole
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    plane = u[:, :2] * s[:2]
    pairs = torch.triu_indices(graph.nodes, graph.nodes, 1)
    near, far = torch.cdist(plane, plane)[pairs[0], pairs[1]], graph.distances()[pairs[0], pairs[1]]
    colours = graph.colours()
    parity = 0.0
    if colours is not None:
        parity = float((colours.double() @ x).square().sum() / (graph.nodes * whole))
    return Shape(float(energy), float(torch.corrcoef(torch.stack([near, far]))[0, 1].nan_to_num()), parity)


def class_means(
    states: Float[Tensor, "step d"], nodes: Int[Tensor, " step"], count: int, least: int = 1
) -> States | None:
    """Mean state at each node, or None where one occurs fewer times than `least`."""
    seen = torch.bincount(nodes, minlength=count)
    if int(seen.min()) < least:
        return None
    sums = torch.zeros(count, states.shape[1], dtype=torch.float64).index_add(0, nodes, states.double())
    return sums / seen[:, None]


class Following(NamedTuple):
    """How much of the prediction obeys the graph, at each step but the last."""

    among: PerStep
    """Chance of a neighbour, among the nodes."""
    full: PerStep
    """The same among all tokens."""
    forward: PerStep
    """Among the nodes other than the one before: going back always obeys the rule. NaN at the first step."""
    back: PerStep
    """Chance of the node before, among the nodes. NaN at the first step."""


def following(
    chances: Float[Tensor, "walk step node"],
    full: Float[Tensor, "walk step"],
    graph: Graph,
    walk: Int[Tensor, "walk step"],
) -> Following:
    """`chances`: of each node after each step, of the full softmax; `full`: their sum. A walk's last step is left out."""
    here = walk[:, :-1]
    valid: Bool[Tensor, "walk step node"] = graph.adjacency[here]
    nodes = chances[:, :-1]
    total = nodes.sum(2).clamp_min(1e-12)
    good = (nodes * valid).sum(2)
    before = torch.cat([here[:, :1], here[:, :-1]], 1)
    back = nodes.gather(2, before[..., None])[..., 0]
    # Where it is no neighbour, as after a jump, it is not among the valid ones either.
    backs = back * valid.gather(2, before[..., None])[..., 0]
    forward = (good - backs).clamp_min(0) / (total - back).clamp_min(1e-12)
    for values in (forward, back):
        values[:, 0] = torch.nan
    return Following(good / total, good / total * full[:, :-1], forward, back / total)


def copied(walk: Int[Tensor, "walk step"], graph: Graph) -> PerStep:
    """What a reader gets who names any node that came next before, and any node at all where none did."""
    count, length = walk.shape
    seen = torch.zeros(count, graph.nodes, dtype=torch.bool)
    rows = torch.arange(count)
    degree = graph.adjacency.double().mean(1)
    out = torch.empty(count, length - 1, dtype=torch.float64)
    for t in range(length - 1):
        here = walk[:, t]
        out[:, t] = torch.where(seen[rows, here], 1.0, degree[here])
        seen[rows, here] = True
    return out


def counted(walk: Int[Tensor, "walk step"], graph: Graph) -> PerStep:
    """What counting steps gives, with 1 added to each count."""
    count, length = walk.shape
    tally = torch.ones(count, graph.nodes, graph.nodes, dtype=torch.float64)
    rows = torch.arange(count)
    out = torch.empty(count, length - 1, dtype=torch.float64)
    for t in range(length - 1):
        here = walk[:, t]
        row = tally[rows, here]
        out[:, t] = (row * graph.adjacency[here]).sum(1) / row.sum(1)
        tally[rows, here, walk[:, t + 1]] += 1
    return out
