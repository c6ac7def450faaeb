"""The small real model on walks over words: how it follows them and whether its states take the shape of the graph."""

from typing import NamedTuple

import torch

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.errors import AssetError
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.graph_tracing.lists import read_meter, smooth
from perimetry.labs.graph_tracing.measures import counted
from perimetry.labs.graph_tracing.real import SPELLINGS, Traced, share_of_pairs, trace
from perimetry.labs.graph_tracing.world import grid, ring, walks
from perimetry.runtime import RuntimeConfig, generator, start

__all__ = ["RealConfig", "run_real"]


class RealConfig(NamedTuple):
    """Sizes."""

    model: str
    """Asset name, local folder or hub id."""
    walks: int
    """Walks of each kind."""
    steps: int
    """Their steps."""
    pairs: int
    """Pairs of neighbours on a ring, in each list of such."""
    meter: bool
    """Whether the meter reads the model too."""


def run_real(at: RealConfig, seed: int) -> Outcome:
    """The small real model on walks over words; says so where its weights cannot be had."""
    try:
        lm = load_language_model(at.model, start(RuntimeConfig.model_validate({"dtype": "float32"})))
    except AssetError:
        return Outcome([Measured("weights at hand", 0.0)], {})
    graph, draw = grid(4, 4), generator(70 + seed)
    layers = tuple(sorted({round(share * (lm.n_layers - 1)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)}))
    window, half = min(200, at.steps // 2), at.steps // 2
    walk = walks(graph, at.walks, at.steps, draw)
    uniform = walks(graph, at.walks, at.steps, draw, backtracking=True)
    mixed = walk.gather(1, torch.rand(walk.shape, generator=draw).argsort(1))
    # The same words on the same graph, at other nodes from half way on.
    renamed = torch.randperm(graph.nodes, generator=draw)
    turned = torch.cat([walk[:, :half], renamed[walks(graph, at.walks, at.steps - half, draw)]], 1)
    kept = {"nonbacktracking": walk, "uniform": uniform, "shuffled": mixed, "switched": turned}
    traced = {name: trace(lm, graph, own, layers, window=window) for name, own in kept.items()}
    measured = [Measured("weights at hand", 1.0), *_written_otherwise(lm, walk, layers[:1], at, draw)]
    curves: dict[str, Curve] = {}
    for name, found in traced.items():
        if name == "switched":
            # Judged by the graph of its first half, it says nothing; it is there for the scores.
            continue
        measured += [*_followed(found, name, at.steps), *_shaped(found, name)]
        curves[name] = Curve([float(t) for t in range(at.steps - 1)], smooth(found.follows.among.mean(0)).tolist())
    for name in ("nonbacktracking", "uniform"):
        base = counted(kept[name], graph).mean(0)
        curves[f"counting, {name}"] = Curve([float(t) for t in range(len(base))], base.tolist())
    if at.meter:
        read, more = read_meter(lm, {name: found.read for name, found in traced.items()}, layers[1], seed)
        measured += read
        curves |= more
    return Outcome(measured, curves)


def _written_otherwise(
    lm: LanguageModel, walk: torch.Tensor, layers: tuple[int, ...], at: RealConfig, draw: torch.Generator
) -> list[Measured]:
    """The same walks with other separators, and pairs of neighbours on a ring instead of a walk."""
    found: list[Measured] = []
    for name in ("comma", "none"):
        own = trace(lm, grid(4, 4), walk, layers, window=walk.shape[1] // 2, spelling=SPELLINGS[name])
        found += _followed(own, f"separator {name}", walk.shape[1])
    shares = share_of_pairs(lm, ring(10), at.walks, at.pairs, draw)
    return [
        *found,
        Measured("valid share", float(shares[:, :10].mean()), "pairs on a ring, early"),
        Measured("valid share", float(shares[:, -28:].mean()), "pairs on a ring, late"),
    ]


def _followed(found: Traced, name: str, steps: int) -> list[Measured]:
    """Shares of the prediction that obey the graph, early and late."""
    kinds = {
        "valid share": found.follows.among,
        "valid share forward": found.follows.forward,
        "valid share of all tokens": found.follows.full,
    }
    places = {"early": slice(4, 16), "late": slice(steps - 28, steps - 1)}
    return [
        Measured(what, float(values.nanmean(0)[window].mean()), f"{name}, {place}")
        for what, values in kinds.items()
        for place, window in places.items()
    ]


def _shaped(found: Traced, name: str) -> list[Measured]:
    """Energy of the block where it is least, and correlation of the plane of the block where it is greatest."""
    own = [shapes for shapes in found.shapes.values() if shapes]
    if not own:
        return []
    return [
        Measured("energy", min(sum(s.energy for s in some) / len(some) for some in own), f"{name}, best block"),
        Measured("plane", max(sum(s.plane for s in some) / len(some) for some in own), f"{name}, best block"),
    ]
