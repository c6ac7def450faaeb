"""A transformer that has seen nothing but walks: every sequence on a graph with names of its own."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import TokenIds
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.graph_tracing.measures import Following, class_means, following, shape_of
from perimetry.labs.graph_tracing.world import Graph, grid, ring, walks, walks_on
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = ["Heads", "Named", "ScratchArm", "follow", "geometry_of", "heads_of", "named_walks", "train_walker"]

AHEAD = 16
"""Batches that are drawn at once."""
LEAST, MOST = 8, 12
"""Sizes of the rings that are trained on."""


class ScratchArm(Config):
    """The transformer and its training."""

    vocab: int = 32
    """Tokens; the last is never a node."""
    length: int = 128
    """Steps of a training walk."""
    context: int = 512
    """Positions that the model has; those beyond the training walks are for tests."""
    width: int = 64
    """Width of the residual stream."""
    heads: int = 4
    """Attention heads of each of two blocks."""
    batch: int = 32
    """Walks of an update."""
    steps: int = 1200
    """Updates."""
    lr: float = 4e-3
    """Learning rate of AdamW, constant after its warm-up."""
    warmup: int = 100
    """Updates over which it rises from 0."""
    deviation: float = 0.05
    """Standard deviation of the first weights."""
    backtracking: bool = False
    """Whether walks may go straight back: on these a model that repeats the node before is always right."""

    def walks(
        self, graph: Graph, count: int, draw: torch.Generator, *, length: int | None = None, teleport: float = 0.0
    ) -> "Named":
        """Walks on one graph as those that are trained on, each with names of its own; `length`: None, that of training."""
        steps = self.length if length is None else length
        return named_walks(
            graph, count, steps, draw, vocab=self.vocab, backtracking=self.backtracking, teleport=teleport
        )

    def model(self, seed: int) -> Nano:
        """The transformer before training."""
        config = NanoConfig(
            vocab=self.vocab,
            context=self.context,
            width=self.width,
            heads=self.heads,
            deviation=self.deviation,
        )
        return Nano(config, seed)


class Named(NamedTuple):
    """Walks with their names."""

    ids: TokenIds
    """What the model reads."""
    walk: Int[Tensor, "walk step"]
    """The nodes."""
    names: Int[Tensor, "walk node"]
    """The token of each node."""


def _names(count: int, nodes: int, vocab: int, draw: torch.Generator) -> Tensor:
    """So many different tokens for each walk, the last token never among them."""
    return torch.rand(count, vocab - 1, generator=draw).argsort(1)[:, :nodes]


def named_walks(
    graph: Graph,
    count: int,
    length: int,
    draw: torch.Generator,
    *,
    vocab: int = 32,
    backtracking: bool = False,
    teleport: float = 0.0,
) -> Named:
    """Walks on one graph, each with names drawn for it."""
    walk = walks(graph, count, length, draw, backtracking=backtracking, teleport=teleport)
    names = _names(count, graph.nodes, vocab, draw)
    return Named(names.gather(1, walk), walk, names)


def _batches(arm: ScratchArm, seed: int, steps: int) -> Iterator[TokenIds]:
    """Batches, half of each on the grid and half on rings, drawn several at a time: a step of all walks costs hardly more than one of few."""
    graphs = [grid(4, 4), *(ring(n) for n in range(LEAST, MOST + 1))]
    links = torch.zeros(len(graphs), 16, 16)
    for number, graph in enumerate(graphs):
        links[number, : graph.nodes, : graph.nodes] = graph.adjacency.float()
    draw = generator(6700417 + seed)
    count = AHEAD * arm.batch
    for begin in range(0, steps, AHEAD):
        which = torch.randint(1, len(graphs), (count,), generator=draw)
        which[torch.arange(count) % arm.batch < arm.batch // 2] = 0
        sizes = torch.where(which == 0, 16, which + LEAST - 1)
        first = (torch.rand(count, generator=draw) * sizes).long()
        walk = walks_on(links[which], sizes, first, arm.length, draw, backtracking=arm.backtracking)
        yield from _names(count, 16, arm.vocab, draw).gather(1, walk).split(arm.batch)[: steps - begin]


def train_walker(arm: ScratchArm, seed: int, steps: int) -> Nano:
    """Train on walks that are never the same; AdamW (.9, .95), decay .01."""
    model = arm.model(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arm.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    for step, ids in enumerate(_batches(arm, seed, steps), 1):
        optimiser.param_groups[0]["lr"] = arm.lr * min(1.0, step / max(1, arm.warmup))
        descend(optimiser, model.loss(ids), clip=1.0)
    return model.eval()


@torch.no_grad()
def follow(model: Nano, named: Named, graph: Graph, off: tuple[tuple[int, int], ...] = ()) -> Following:
    """How the model's predictions obey the graph."""
    chances = model.read(named.ids, off=off).logits.softmax(-1).double()
    nodes = chances.gather(2, named.names[:, None].expand(-1, named.ids.shape[1], -1))
    return following(nodes, nodes.sum(2), graph, named.walk)


@torch.no_grad()
def geometry_of(
    model: Nano, named: Named, graph: Graph, layer: int, window: int, other: Graph | None = None
) -> dict[str, Float[Tensor, " walk"]]:
    """Energy, plane and parity of the node means of each walk's last steps; with `other` by the shape of that graph."""
    states = model.read(named.ids, (layer,)).residuals[layer]
    found: dict[str, list[float]] = {"energy": [], "plane": [], "parity": []}
    for row, walk in zip(states, named.walk, strict=True):
        means = class_means(row[-window:], walk[-window:], graph.nodes)
        if means is not None:
            shape = shape_of(means, other or graph)
            for name, values in found.items():
                values.append(getattr(shape, name))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


class Heads(NamedTuple):
    """What each head attends to, block by head."""

    previous: Float[Tensor, "block head"]
    """Attention to the position before."""
    induction: Float[Tensor, "block head"]
    """Attention to what stood after earlier occurrences of the same token."""


def heads_of(model: Nano, ids: TokenIds, skip: int = 32) -> Heads:
    """Mean attention of the positions from `skip` on."""
    same = torch.tril(ids[:, :, None] == ids[:, None], -1)
    after = torch.nn.functional.pad(same[:, :, :-1], (1, 0))
    previous, induction = [], []
    for pattern in model.patterns(ids):
        previous.append(pattern.diagonal(-1, 2, 3)[:, :, skip:].mean((0, 2)))
        induction.append((pattern * after[:, None]).sum(3)[:, :, skip:].mean((0, 2)))
    return Heads(torch.stack(previous), torch.stack(induction))
