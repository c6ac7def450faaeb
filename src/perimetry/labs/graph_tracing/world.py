"""Hidden graphs, and walks on them whose steps are all that a model sees."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.errors import ConfigError

__all__ = ["Graph", "grid", "hexagons", "ring", "star", "tree", "walks", "walks_on"]


class Graph(NamedTuple):
    """An undirected graph."""

    name: str
    """What it is."""
    adjacency: Bool[Tensor, "node node"]
    """True where an edge is."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.adjacency.shape[0]

    def laplacian(self) -> Float[Tensor, "node node"]:
        """Degrees on the diagonal minus the adjacency, float64."""
        links = self.adjacency.double()
        return torch.diag(links.sum(1)) - links

    def distances(self) -> Float[Tensor, "node node"]:
        """Steps of the shortest path; infinite where there is none."""
        away = torch.full(self.adjacency.shape, torch.inf, dtype=torch.float64)
        reached = torch.eye(self.nodes, dtype=torch.bool)
        for step in range(self.nodes):
            away[reached & away.isinf()] = step
            reached = reached | (reached.double() @ self.adjacency.double() > 0)
        return away

    def colours(self) -> Int[Tensor, " node"] | None:
        """+1 and -1 so that every edge joins both, or None where there is no such colouring."""
        parity = torch.where(self.distances()[0] % 2 == 0, 1, -1)
        return parity if not bool((self.adjacency & (parity[:, None] == parity)).any()) else None


def _graph(name: str, nodes: int, edges: list[tuple[int, int]]) -> Graph:
    links = torch.zeros(nodes, nodes, dtype=torch.bool)
    for one, other in edges:
        links[one, other] = links[other, one] = True
    return Graph(name, links)


def grid(rows: int, columns: int) -> Graph:
    """Rows and columns.

    >>> int(grid(4, 4).adjacency.sum()) // 2
    24
    """
    across = [(r * columns + c, r * columns + c + 1) for r in range(rows) for c in range(columns - 1)]
    down = [(r * columns + c, (r + 1) * columns + c) for r in range(rows - 1) for c in range(columns)]
    return _graph(f"grid {rows}x{columns}", rows * columns, across + down)


def ring(nodes: int) -> Graph:
    """A cycle."""
    return _graph(f"ring {nodes}", nodes, [(i, (i + 1) % nodes) for i in range(nodes)])


def hexagons(rows: int, columns: int) -> Graph:
    """A lattice of hexagons, so many up and across.

    >>> hexagons(3, 3).nodes, int(hexagons(3, 3).adjacency.sum()) // 2
    (30, 38)
    """
    height = 2 * rows + 2
    places = {(i, j) for i in range(columns + 1) for j in range(height)}
    places -= {(0, height - 1), (columns, (height - 1) * (columns % 2))}
    up = [((i, j), (i, j + 1)) for i in range(columns + 1) for j in range(height - 1)]
    across = [((i, j), (i + 1, j)) for i in range(columns) for j in range(height) if i % 2 == j % 2]
    number = {place: n for n, place in enumerate(sorted(places))}
    edges = [(number[a], number[b]) for a, b in up + across if a in number and b in number]
    return _graph(f"hexagons {rows}x{columns}", len(number), edges)


def tree(nodes: int) -> Graph:
    """A binary tree."""
    return _graph(f"tree {nodes}", nodes, [((i - 1) // 2, i) for i in range(1, nodes)])


def star(nodes: int) -> Graph:
    """One node beside all others."""
    return _graph(f"star {nodes}", nodes, [(0, i) for i in range(1, nodes)])


def walks(
    graph: Graph,
    count: int,
    length: int,
    draw: torch.Generator,
    *,
    backtracking: bool = False,
    teleport: float = 0.0,
    starts: Int[Tensor, " walk"] | None = None,
) -> Int[Tensor, "walk step"]:
    """Walks, each step to a neighbour drawn evenly; without `backtracking` never to the node before, where another is left.

    `teleport`: chance that a step goes to any node, drawn evenly. Errors: `ConfigError` for a node without neighbours.
    """
    if not bool(graph.adjacency.any(1).all()):
        raise ConfigError(f"{graph.name} has a node without neighbours; walks want one at every node")
    links = graph.adjacency.float().expand(count, -1, -1)
    first = torch.randint(0, graph.nodes, (count,), generator=draw) if starts is None else starts
    sizes = torch.full((count,), graph.nodes)
    return walks_on(links, sizes, first, length, draw, backtracking=backtracking, teleport=teleport)


def walks_on(
    links: Float[Tensor, "walk node node"],
    sizes: Int[Tensor, " walk"],
    first: Int[Tensor, " walk"],
    length: int,
    draw: torch.Generator,
    *,
    backtracking: bool = False,
    teleport: float = 0.0,
) -> Int[Tensor, "walk step"]:
    """As `walks`, each walk on a graph of its own: adjacencies padded with zeros, and the nodes that each has."""
    rows = torch.arange(links.shape[0])
    out = torch.empty(links.shape[0], length, dtype=torch.int64)
    out[:, 0] = first
    for t in range(1, length):
        open_ = links[rows, out[:, t - 1]]
        if t > 1 and not backtracking:
            back = out[:, t - 2, None]
            kept = open_.scatter(1, back, 0.0)
            open_ = torch.where(kept.sum(1, keepdim=True) > 0, kept, open_)
        # Even among what is open: the greatest of so many uniforms.
        step = (open_ * (1 + torch.rand(open_.shape, generator=draw))).argmax(1)
        if teleport:
            jumps = torch.rand(rows.shape[0], generator=draw) < teleport
            anywhere = (torch.rand(rows.shape[0], generator=draw) * sizes).long()
            step = torch.where(jumps, anywhere, step)
        out[:, t] = step
    return out
