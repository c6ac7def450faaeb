"""The arms of the lab: what the walk alone gives, a transformer from scratch, the small real model."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import read_layers
from perimetry.activations.text import pack
from perimetry.assets import read_texts
from perimetry.errors import AssetError
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.graph_tracing.attachment import AttachConfig, attach
from perimetry.labs.graph_tracing.measures import copied, counted, shape_of
from perimetry.labs.graph_tracing.real import Traced, trace
from perimetry.labs.graph_tracing.scratch import (
    Named,
    ScratchArm,
    follow,
    geometry_of,
    heads_of,
    named_walks,
    train_walker,
)
from perimetry.labs.graph_tracing.world import Graph, grid, hexagons, ring, walks
from perimetry.labs.nano import Nano
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, train_on_points
from perimetry.runtime import RuntimeConfig, generator, start
from perimetry.train.recipe import TrainConfig

__all__ = ["TIMES", "run_baselines", "run_real", "run_scratch"]

TIMES = (10, 30, 100, 200, 400)
SMOOTH = 8


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
    named = named_walks(graph, tests, arm.length, draw, vocab=arm.vocab, backtracking=arm.backtracking)
    jumping = named_walks(graph, tests, arm.length, draw, vocab=arm.vocab, teleport=1.0)
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
    base = counted(named.walk, graph).mean(0)
    measured.append(Measured("valid share", float(base[-28:].mean()), "counting"))
    curves["counting"] = Curve([float(t) for t in range(len(base))], base.tolist())
    measured += _ablated(model, named, graph, seed)
    return Outcome(measured + attach(model, arm, at, seed), curves)


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


def run_real(spec: str, seed: int, count: int, steps: int, meter: bool) -> Outcome:
    """The small real model on walks over words; says so where its weights cannot be had."""
    try:
        lm = load_language_model(spec, start(RuntimeConfig.model_validate({"dtype": "float32"})))
    except AssetError:
        return Outcome([Measured("weights at hand", 0.0)], {})
    graph, draw = grid(4, 4), generator(70 + seed)
    layers = tuple(sorted({round(share * (lm.n_layers - 1)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)}))
    window = min(200, steps // 2)
    kept = {
        "nonbacktracking": walks(graph, count, steps, draw),
        "uniform": walks(graph, count, steps, draw, backtracking=True),
    }
    mixed = kept["nonbacktracking"].gather(1, torch.rand(count, steps, generator=draw).argsort(1))
    traced = {name: trace(lm, graph, walk, layers, window=window) for name, walk in kept.items()}
    traced["shuffled"] = trace(lm, graph, mixed, layers, window=window)
    measured = [Measured("weights at hand", 1.0)]
    curves: dict[str, Curve] = {}
    for name, found in traced.items():
        measured += _followed(found, name, steps)
        curves[name] = Curve([float(t) for t in range(steps - 1)], _smooth(found.follows.among.mean(0)).tolist())
    for name in ("nonbacktracking", "uniform"):
        base = counted(kept[name], graph).mean(0)
        curves[f"counting, {name}"] = Curve([float(t) for t in range(len(base))], base.tolist())
    if meter:
        read, more = _real_meter(lm, traced, layers[1], seed)
        measured += read
        curves |= more
    return Outcome(measured, curves)


def _smooth(values: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(values[None, None], (SMOOTH, SMOOTH), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, 2 * SMOOTH + 1, 1)[0, 0]


def _followed(found: Traced, name: str, steps: int) -> list[Measured]:
    measured: list[Measured] = []
    for what, values in (("valid share", found.follows.among), ("valid share forward", found.follows.forward)):
        means = values.nanmean(0)
        for place, window in (("early", slice(4, 16)), ("late", slice(steps - 28, steps - 1))):
            measured.append(Measured(what, float(means[window].mean()), f"{name}, {place}"))
    best = {layer: sum(s.energy for s in own) / len(own) for layer, own in found.shapes.items() if own}
    if best:
        layer = min(best, key=lambda at: best[at])
        planes = max(sum(s.plane for s in own) / len(own) for own in found.shapes.values() if own)
        measured += [
            Measured("energy", best[layer], f"{name}, best block"),
            Measured("plane", planes, f"{name}, best block"),
        ]
    return measured


def _real_meter(
    lm: LanguageModel, traced: Mapping[str, Traced], layer: int, seed: int
) -> tuple[list[Measured], dict[str, Curve]]:
    """Does the score rise while the graph is learned, or with the length of the list? Shuffled words have no graph.

    What is normal is ordinary text; a rise that the shuffled list shows as well is that of a long list.
    """
    clean = _ordinary(lm, layer, 40, 512)
    recipe = TrainConfig(
        architecture="batchtopk",
        width=1024,
        k=24,
        tokens=600 * 512,
        batch=512,
        seed=seed,
        data_seed=seed,
        lr=1e-3,
        normalise="none",
    )
    made = train_on_points(clean, recipe)
    meter = PointMeter(made.sae, made.inputs(clean), (*CONCEPTS, *BASELINES))
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    for name, states in (
        ("walk", traced["nonbacktracking"].states[layer]),
        ("list", traced["shuffled"].states[layer]),
    ):
        scores = meter.scores(made.inputs(states.flatten(0, 1)))
        for score, values in scores.items():
            by_step = values.view(states.shape[:2]).mean(0)
            third = len(by_step) // 3
            measured += [
                Measured("mean score", float(by_step[32:third].mean()), f"{score}, {name}, early"),
                Measured("mean score", float(by_step[-third:].mean()), f"{score}, {name}, late"),
            ]
            curves[f"{score}, {name}"] = Curve([float(t) for t in range(len(by_step))], _smooth(by_step).tolist())
    return measured, curves


@torch.no_grad()
def _ordinary(lm: LanguageModel, layer: int, rows: int, context: int) -> Tensor:
    """States of ordinary text, rows of so many tokens; attention sinks and the first tokens of a row are left out."""
    found: list[Tensor] = []
    for row in itertools.islice(pack(list(read_texts("wikipedia"))[:400], lm, TokenPolicy(), context), rows):
        ids = torch.tensor([row.ids], device=lm.device)
        states = read_layers(lm, [layer], ids, torch.ones_like(ids, dtype=torch.bool))[layer][0].float().cpu()
        found.append(states[torch.tensor(row.countable)][8:])
    whole = torch.cat(found)
    norms = whole.norm(dim=1)
    return whole[norms < 10 * norms.median()]
