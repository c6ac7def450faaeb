"""The small real model on walks over words: how it follows them, and what a score makes of a long list, a graph and a switch."""

import itertools
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import read_layers
from perimetry.activations.text import pack
from perimetry.assets import read_texts
from perimetry.errors import AssetError
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.graph_tracing.measures import counted
from perimetry.labs.graph_tracing.real import Traced, trace
from perimetry.labs.graph_tracing.world import grid, walks
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, train_on_points
from perimetry.measures.stats import spearman
from perimetry.runtime import RuntimeConfig, generator, start
from perimetry.train.recipe import TrainConfig

__all__ = ["partial_spearman", "run_real"]

SMOOTH = 8
SKIP = 32
"""Steps at the beginning that are not scored."""


def _smooth(values: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(values[None, None], (SMOOTH, SMOOTH), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, 2 * SMOOTH + 1, 1)[0, 0]


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
    # The same words on the same graph, at other nodes from half way on.
    renamed = torch.randperm(graph.nodes, generator=draw)
    turned = torch.cat(
        [kept["nonbacktracking"][:, : steps // 2], renamed[walks(graph, count, steps - steps // 2, draw)]], 1
    )
    traced["switched"] = trace(lm, graph, turned, layers, window=window)
    measured = [Measured("weights at hand", 1.0)]
    curves: dict[str, Curve] = {}
    for name, found in traced.items():
        if name == "switched":
            # Judged by the graph of its first half, it says nothing; it is there for the scores.
            continue
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
    clean = _ordinary(lm, layer, 20, 512)
    recipe = TrainConfig(
        architecture="batchtopk",
        width=1024,
        k=24,
        tokens=300 * 512,
        batch=512,
        seed=seed,
        data_seed=seed,
        lr=1e-3,
        normalise="none",
    )
    made = train_on_points(clean, recipe)
    meter = PointMeter(made, clean, (*CONCEPTS, *BASELINES))
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    by_name: dict[str, dict[str, Tensor]] = {}
    for name, read in (("walk", "nonbacktracking"), ("list", "shuffled"), ("switch", "switched")):
        states = traced[read].states[layer]
        scores = meter.scores(states.flatten(0, 1))
        by_name[name] = {score: values.view(states.shape[:2]) for score, values in scores.items()}
        by_name[name]["nll"] = traced[read].nll
    for name in ("walk", "list"):
        for score, values in by_name[name].items():
            measured += _drift(values, by_name[name]["norm"], f"{score}, {name}")
            mean = values.mean(0)
            curves[f"{score}, {name}"] = Curve([float(t) for t in range(len(mean))], _smooth(mean).tolist())
    for score, values in by_name["switch"].items():
        measured += _delay(values, score)
        # The same walk with nothing exchanged: what the delay is by chance.
        measured += _delay(by_name["walk"][score], f"{score}, no switch")
    return measured, curves


def _drift(values: Float[Tensor, "walk step"], norm: Float[Tensor, "walk step"], case: str) -> list[Measured]:
    """Mean score of an early and of the last third, and the rank correlation with the step, the norm apart."""
    by_step, third = values.mean(0), values.shape[1] // 3
    steps = torch.arange(SKIP, values.shape[1], dtype=torch.float64)
    return [
        Measured("mean score", float(by_step[SKIP:third].mean()), f"{case}, early"),
        Measured("mean score", float(by_step[-third:].mean()), f"{case}, late"),
        Measured("score follows the step", partial_spearman(by_step[SKIP:], steps, norm.mean(0)[SKIP:]), case),
    ]


def partial_spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"], given: Float[Tensor, " n"]) -> float:
    """Rank correlation of two with the linear part of a third's ranks taken off both; 0 where nothing is left.

    >>> partial_spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0]))
    1.0
    """
    ab, ag, bg = (spearman(x.double(), y.double()).estimate for x, y in ((a, b), (a, given), (b, given)))
    left = (1 - ag * ag) * (1 - bg * bg)
    return round((ab - ag * bg) / left**0.5, 9) if left > 1e-12 else 0.0


def _delay(values: Float[Tensor, "walk step"], score: str) -> list[Measured]:
    """Steps after the switch until the mean of the last eight lies above what it does in 5 % of the steps before; walks that never
    do count as the whole rest."""
    half = values.shape[1] // 2
    running = values.unfold(1, SMOOTH, 1).mean(2)
    # The mean that ends at step t stands at t - SMOOTH + 1.
    before, after = running[:, SKIP : half - SMOOTH + 1], running[:, half - SMOOTH + 1 :]
    limit = before.quantile(0.95, dim=1, keepdim=True)
    above = after > limit
    found = above.any(1)
    delay = torch.where(found, above.float().argmax(1), after.shape[1])
    return [
        Measured("detection delay", float(delay.float().mean()), score),
        Measured("switch detected", float(found.float().mean()), score),
    ]


@torch.no_grad()
def _ordinary(lm: LanguageModel, layer: int, rows: int, context: int) -> Tensor:
    """States of ordinary text, rows of so many tokens; attention sinks and the first tokens of a row are left out."""
    found: list[Tensor] = []
    for row in itertools.islice(pack(list(read_texts("wikipedia"))[:400], lm, TokenPolicy(), context), rows):
        ids = torch.tensor([row.ids], device=lm.device)
        states = read_layers(lm, [layer], ids, torch.ones_like(ids))[layer][0].float().cpu()
        found.append(states[torch.tensor(row.countable)][8:])
    whole = torch.cat(found)
    norms = whole.norm(dim=1)
    return whole[norms < 10 * norms.median()]
