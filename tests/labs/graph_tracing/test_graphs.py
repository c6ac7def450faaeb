"""Graphs, walks and shapes, against what is known of them."""

import pytest
import torch

from perimetry.labs.graph_tracing.measures import class_means, copied, counted, following, shape_of
from perimetry.labs.graph_tracing.scratch import ScratchArm, follow, heads_of, named_walks
from perimetry.labs.graph_tracing.world import Graph, grid, hexagons, ring, star, tree, walks
from perimetry.runtime import generator


@pytest.mark.parametrize(
    ("graph", "nodes", "edges", "least", "most"),
    [
        (grid(4, 4), 16, 24, 0.586, 6.83),
        (ring(10), 10, 10, 0.382, 4.0),
        (ring(7), 7, 7, 0.753, 3.80),
        (hexagons(3, 3), 30, 38, 0.170, 5.64),
    ],
    ids=lambda x: x.name if isinstance(x, Graph) else "",
)
def test_graphs_are_those_of_the_study(graph: Graph, nodes: int, edges: int, least: float, most: float) -> None:
    values = torch.linalg.eigvalsh(graph.laplacian())
    assert (graph.nodes, int(graph.adjacency.sum()) // 2) == (nodes, edges)
    assert float(values[1]) == pytest.approx(least, abs=1e-3)
    assert float(values[-1]) == pytest.approx(most, abs=5e-3)


def test_walks_follow_edges_and_do_not_go_back() -> None:
    graph = grid(4, 4)
    for backtracking in (False, True):
        walk = walks(graph, 200, 60, generator(0), backtracking=backtracking)
        assert bool(graph.adjacency[walk[:, :-1], walk[:, 1:]].all())
        assert bool((walk[:, 2:] == walk[:, :-2]).any()) == backtracking
    ends = walks(star(5), 20, 30, generator(1))
    assert bool(star(5).adjacency[ends[:, :-1], ends[:, 1:]].all()), "where only the way back is left, it is taken"
    jumps = walks(graph, 200, 60, generator(2), teleport=1.0)
    obeyed = graph.adjacency[jumps[:, :-1], jumps[:, 1:]].float().mean()
    assert float(obeyed) == pytest.approx(3 / 16, abs=0.02)


def test_colours_and_distances() -> None:
    assert tree(7).colours() is not None
    assert ring(7).colours() is None
    assert float(grid(4, 4).distances()[0, 15]) == 6
    colours = ring(10).colours()
    assert colours is not None
    assert colours.tolist() == [1, -1] * 5


def test_shapes_of_states_whose_geometry_is_known() -> None:
    for graph in (grid(4, 4), ring(10)):
        vectors = torch.linalg.eigh(graph.laplacian())[1]
        shape = shape_of(vectors[:, 1:3], graph)
        assert shape.energy == pytest.approx(float(torch.linalg.eigvalsh(graph.laplacian())[1:3].mean()), rel=1e-6)
        assert shape.plane > 0.9
        colours = graph.colours()
        assert colours is not None
        assert shape_of(colours[:, None].double(), graph).parity == pytest.approx(1.0)


def test_following_leaves_the_way_back_out() -> None:
    graph = ring(5)
    walk = torch.tensor([[0, 1, 2, 3]])
    chances = torch.zeros(1, 4, 5, dtype=torch.float64)
    for step, back in enumerate((4, 0, 1, 2)):
        chances[0, step, back] = 0.5
    found = following(chances, chances.sum(2), graph, walk)
    assert found.among[0].tolist() == [1.0, 1.0, 1.0]
    assert found.full[0].tolist() == [0.5, 0.5, 0.5]
    assert found.back[0, 1:].tolist() == [1.0, 1.0]
    assert found.forward[0, 1:].tolist() == [0.0, 0.0]


def test_copying_and_counting_by_hand() -> None:
    graph = ring(4)
    walk = torch.tensor([[0, 1, 2, 3, 0, 1]])
    assert copied(walk, graph)[0].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert counted(walk, graph)[0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 3 / 5])


def test_means_of_nodes() -> None:
    states, nodes = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])
    means = class_means(states, nodes, 2)
    assert means is not None
    assert means[:, 0].tolist() == [2.0, 5.0]
    assert class_means(states, nodes, 3) is None


def test_a_silenced_head_writes_nothing_and_patterns_sum_to_one() -> None:
    arm = ScratchArm(length=24, context=32)
    model = arm.model(0)
    named = named_walks(grid(4, 4), 4, 24, generator(3))
    assert int(named.ids.max()) < 31, "the last token is never a node"
    assert torch.equal(named.names.gather(1, named.walk), named.ids)
    for pattern in model.patterns(named.ids):
        torch.testing.assert_close(pattern.sum(3), torch.ones(4, 4, 24))
    whole, less = (model.read(named.ids, off=off).logits for off in ((), ((0, 1),)))
    assert not torch.allclose(whole, less)
    every = tuple((b, h) for b in range(2) for h in range(4))
    same = model.read(named.ids.flip(1), off=every).logits.flip(1)
    torch.testing.assert_close(model.read(named.ids, off=every).logits, same, atol=1e-5, rtol=1e-4)
    assert heads_of(model, named.ids, 4).previous.shape == (2, 4)
    assert float(follow(model, named, grid(4, 4)).among.mean()) == pytest.approx(3 / 16, abs=0.08)


def test_what_is_no_neighbour_is_not_taken_off_the_valid_share() -> None:
    """After a jump the node before is no neighbour; its chance then is among the others only."""
    graph = ring(6)
    walk = torch.tensor([[0, 3, 4, 5]])
    chances = torch.zeros(1, 4, 6, dtype=torch.float64)
    chances[0, 1] = torch.tensor([0.5, 0.0, 0.25, 0.0, 0.25, 0.0])
    found = following(chances, chances.sum(2), graph, walk)
    assert float(found.forward[0, 1]) == pytest.approx(1.0), "all but the node before are neighbours of 3"
