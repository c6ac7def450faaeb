"""Two arms of the lab: what the walk alone gives, and a transformer from scratch."""

import torch

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.graph_tracing.attachment import AttachConfig, attach
from perimetry.labs.graph_tracing.measures import copied, counted, shape_of
from perimetry.labs.graph_tracing.scratch import (
    Named,
    ScratchArm,
    follow,
    geometry_of,
    heads_of,
    train_walker,
)
from perimetry.labs.graph_tracing.world import Graph, grid, hexagons, ring, walks
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

__all__ = ["TIMES", "run_baselines", "run_scratch"]

TIMES = (10, 30, 100, 200, 400)


def run_baselines(seed: int, count: int) -> Outcome:
    """What copying and counting give on the grid, and the shapes of states whose geometry is known."""
    graph = grid(4, 4)
    walk = walks(graph, count, TIMES[-1] + 2, generator(seed), backtracking=True)
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    for name, values in (("copying", copied(walk, graph)), ("counting", counted(walk, graph))):
        means = values.mean(0)
        measured += [Measured("valid share", float(means[t]), f"{name}, step {t}") for t in TIMES]
        curves[name] = Curve([float(t) for t in range(len(means))], means.tolist())
    for known in (graph, ring(10), ring(7), hexagons(3, 3)):
        measured += _references(known, seed)
    return Outcome(measured, curves)


def _references(graph: Graph, seed: int) -> list[Measured]:
    drawn = torch.randn(graph.nodes, 512, generator=generator(seed + 1))
    links = graph.adjacency.float()
    stepped = drawn + links @ drawn / links.sum(1, keepdim=True)
    values, vectors = torch.linalg.eigh(graph.laplacian())
    found = [
        Measured("smallest eigenvalue", float(values[1]), graph.name),
        Measured("largest eigenvalue", float(values[-1]), graph.name),
    ]
    for name, states in (("drawn", drawn), ("one step", stepped), ("spectral", vectors[:, 1:3])):
        shape = shape_of(states, graph)
        found += [
            Measured("energy", shape.energy, f"{graph.name}, {name}"),
            Measured("plane", shape.plane, f"{graph.name}, {name}"),
        ]
    return found


def run_scratch(arm: ScratchArm, seed: int, steps: int, tests: int, at: AttachConfig) -> Outcome:
    """Train a walker and ask it everything; the untrained one answers too."""
    graph = grid(4, 4)
    model = train_walker(arm, seed, steps)
    draw = generator(900 + seed)
    named = arm.walks(graph, tests, draw)
    jumping = arm.walks(graph, tests, draw, teleport=1.0)
    order = torch.rand(named.ids.shape, generator=draw).argsort(1)
    lost = named._replace(ids=named.ids.gather(1, order), walk=named.walk.gather(1, order))
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    untrained = arm.model(seed).eval()
    for name, own, read in (
        ("trained", model, named),
        ("shuffled", model, lost),
        ("teleport 1", model, jumping),
        ("untrained", untrained, named),
    ):
        follows = follow(own, read, graph)
        end = slice(-28, None)
        measured += [
            Measured("valid share", float(follows.among[:, end].mean()), name),
            Measured("valid share forward", float(follows.forward[:, end].mean()), name),
            Measured("back", float(follows.back[:, end].mean()), name),
        ]
        curves[name] = Curve([float(t) for t in range(arm.length - 1)], follows.among.mean(0).tolist())
        measured += _shapes(own, read, graph, name)
    measured += _beyond(model, arm, tests, draw)
    base = counted(named.walk, graph).mean(0)
    measured.append(Measured("valid share", float(base[-28:].mean()), "counting"))
    curves["counting"] = Curve([float(t) for t in range(len(base))], base.tolist())
    measured += _ablated(model, named, graph, seed)
    return Outcome(measured + attach(model, arm, at, seed), curves)


def _beyond(model: Nano, arm: ScratchArm, tests: int, draw: torch.Generator) -> list[Measured]:
    """Valid share at the end of walks on a ring of a length that was never trained on, and of walks longer than any that was."""
    found: list[Measured] = []
    for name, graph, length in (
        ("ring 10", ring(10), arm.length),
        ("ring 13", ring(13), arm.length),
        ("longer walks", grid(4, 4), min(2 * arm.length, arm.context)),
    ):
        named = arm.walks(graph, tests, draw, length=length)
        found.append(Measured("valid share", float(follow(model, named, graph).among[:, -28:].mean()), name))
    return found


def _shapes(model: Nano, named: Named, graph: Graph, name: str) -> list[Measured]:
    found: list[Measured] = []
    for layer in range(model.config.layers):
        shapes = geometry_of(model, named, graph, layer, 96)
        for what, values in shapes.items():
            if values.numel() > 1:
                half = 1.96 * float(values.std()) / values.numel() ** 0.5
                mean = float(values.mean())
                found.append(Measured(what, mean, f"{name}, block {layer}", mean - half, mean + half, values.numel()))
        other = geometry_of(model, named, graph, layer, 96, ring(16))["energy"]
        if other.numel():
            found.append(Measured("energy", float(other.mean()), f"{name}, block {layer}, by a ring"))
    return found


def _ablated(model: Nano, named: Named, graph: Graph, seed: int) -> list[Measured]:
    """Valid share without the heads that look like a circuit, and without as many drawn ones."""
    heads = heads_of(model, named.ids[:16])
    layers, count = heads.previous.shape
    every = [(b, h) for b in range(layers) for h in range(count)]
    ranked = {
        "induction heads": sorted(every, key=lambda at: -float(heads.induction[at])),
        "previous-token heads": sorted(every, key=lambda at: -float(heads.previous[at])),
        "drawn heads": [every[i] for i in torch.randperm(len(every), generator=generator(seed)).tolist()],
    }
    found = [
        Measured("largest attention", float(heads.induction.max()), "induction"),
        Measured("largest attention", float(heads.previous.max()), "previous token"),
    ]
    for name, order in ranked.items():
        follows = follow(model, named, graph, tuple(order[:2]))
        found.append(Measured("valid share", float(follows.among[:, -28:].mean()), f"without 2 {name}"))
    return found
