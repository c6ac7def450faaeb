"""How many concepts a dictionary says there are, where their number is known: on the hidden units of a network, and on its input."""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perimetry.axes import Acts
from perimetry.config import Config
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.points import (
    BASELINES,
    CONCEPTS,
    PointMeter,
    Scaled,
    aurocs,
    evidence_of,
    recipe_of,
    train_on_points,
)
from perimetry.labs.swing_by.networks import hidden_net, train_network
from perimetry.labs.swing_by.world import SimWorld
from perimetry.measures.ranking import auroc
from perimetry.measures.reconstruction import fvu
from perimetry.measures.stats import spearman
from perimetry.runtime import generator
from perimetry.sae.controls import untrained

__all__ = ["CountConfig", "run_count"]

ACTIVE = 0.05
"""A latent is active above this, in units of the root of the total variance."""
RARE = 0.01


class CountConfig(Config):
    """The network, the dictionaries and the test sets."""

    concepts: int = 8
    """Concepts, of sizes evenly from 1 to 2."""
    deviation: float = 0.1
    """Standard deviation of each."""
    points: int = 5000
    """Training points of a cluster."""
    hidden: int = 128
    """Hidden units."""
    steps: int = 6000
    """Steps of the network, of 128 points."""
    lr: float = 0.02
    """Its learning rate."""
    penalties: tuple[float, ...] = (0.02, 0.05, 0.1)
    """Weights of the sparsity term; the middle one is that of the meter."""
    latents: int = 256
    """Latents of a dictionary on the hidden units."""
    latents_x: int = 32
    """Latents of one on the input."""
    sae_steps: int = 3000
    """Steps of a dictionary, of `sae_batch` points."""
    sae_batch: int = 1024
    """Points of such a step."""
    test: int = 500
    """Points of each test set."""


class _Trained(NamedTuple):
    world: SimWorld
    net: nn.Sequential
    points: Acts


def run_count(config: CountConfig, seed: int, *, rare: bool) -> Outcome:
    """One network under one seed with its dictionaries. `rare`: the last cluster holds a hundredth of all points, and the meter alone
    is asked."""
    found = _network(config, seed, rare=rare)
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    draw = generator(1000 + seed)
    sizes = list(range(1, config.concepts + 1))
    sets = {m: found.world.composed(_subsets(m, config, draw), draw) for m in sizes}
    middle = config.penalties[len(config.penalties) // 2]
    sae = _dictionary(config, found, "hidden", config.latents, middle, seed)
    for penalty in () if rare else config.penalties:
        for site, width in (("hidden", config.latents), ("x", config.latents_x)):
            again = (site, penalty) == ("hidden", middle)
            own = sae if again else _dictionary(config, found, site, width, penalty, seed)
            read, means, curve = _counts(found, own, site, sets, f"{site}, {penalty:g}")
            measured += read
            curves[f"count, {site}, {penalty:g}"] = Curve([float(m) for m in sizes], means)
            curves[f"count beside, {site}, {penalty:g}"] = curve
    measured += [] if rare else _control(found, sae, sets, seed)
    measured += _meter(config, found, sae, sets, draw, rare=rare)
    return Outcome(measured, curves)


def _network(config: CountConfig, seed: int, *, rare: bool) -> _Trained:
    mu = tuple(torch.linspace(1, 2, config.concepts).tolist())
    world = SimWorld(
        mu,
        (config.deviation**2,) * config.concepts,
        rotated=True,
        origin=True,
        truncated=True,
        seed=seed,
    )
    counts = [config.points] * world.clusters
    if rare:
        counts[config.concepts - 1] = max(1, round(RARE / (1 - RARE) * config.points * (world.clusters - 1)))
    points, _ = world.train(counts, seed)
    net = hidden_net(points.shape[1], config.hidden, seed)
    train_network(net, points, world, steps=config.steps, lr=config.lr, batch=128, seed=seed)
    return _Trained(world, net, points)


def _subsets(m: int, config: CountConfig, draw: torch.Generator) -> Bool[Tensor, "point concept"]:
    order = torch.rand(config.test, config.concepts, generator=draw).argsort(1)
    return order < m


@torch.no_grad()
def _site(found: _Trained, site: str, points: Acts) -> Float[Tensor, "token unit"]:
    return found.net[:2](points) if site == "hidden" else points


def _dictionary(config: CountConfig, found: _Trained, site: str, width: int, penalty: float, seed: int) -> Scaled:
    recipe = recipe_of(
        "standard",
        width=width,
        k=min(8, width),
        steps=config.sae_steps,
        batch=config.sae_batch,
        seed=seed,
        lr=1e-3,
        sparsity=penalty,
    )
    return train_on_points(_site(found, site, found.points), recipe)


def _counts(
    found: _Trained, sae: Scaled, site: str, sets: dict[int, Acts], case: str
) -> tuple[list[Measured], list[float], Curve]:
    """Counts by the number of concepts, beside the norm."""
    counts, norms, lost = {}, {}, {}
    for m, points in sets.items():
        inputs = sae.inputs(_site(found, site, points))
        evidence = evidence_of(sae.sae, inputs, ACTIVE)
        counts[m] = evidence.codes.count()
        norms[m] = points.norm(dim=1)
        lost[m] = fvu(inputs, evidence.reconstruction)
    means = [float(c.mean()) for c in counts.values()]
    sizes = torch.tensor(list(sets), dtype=torch.float64)
    centred = sizes - sizes.mean()
    slope = float((centred * torch.tensor(means, dtype=torch.float64)).sum() / centred.square().sum())
    one, two = auroc(counts[1], counts[2]), auroc(norms[1], norms[2])
    grows = all(b > a for a, b in itertools.pairwise(means))
    measured = [
        Measured("count grows with concepts", float(grows), case),
        Measured("slope of count", slope, case),
        Measured("AUROC of count, one against two", one, case),
        Measured("AUROC of norm, one against two", two, case),
        Measured("count above norm", one - two, case),
        Measured("count at one concept", means[0], case),
        Measured("count at two concepts", means[1], case),
        Measured("unexplained at one concept", lost[1], case),
        Measured("unexplained at two concepts", lost[2], case),
    ]
    return measured, means, Curve([float(m) for m in sets], [float(n.mean()) for n in norms.values()])


def _control(found: _Trained, sae: Scaled, sets: dict[int, Acts], seed: int) -> list[Measured]:
    """A dictionary that learned nothing, with as many active latents on what was trained on."""
    train = sae.inputs(_site(found, "hidden", found.points[:: max(1, len(found.points) // 4096)]))
    k = max(1, round(float(evidence_of(sae.sae, train, ACTIVE).codes.count().mean())))
    drawn = untrained(sae.sae, seed + 1, train, k)
    one, two = (evidence_of(drawn, sae.inputs(_site(found, "hidden", sets[m]))).codes.count() for m in (1, 2))
    norm = auroc(sets[1].norm(dim=1), sets[2].norm(dim=1))
    return [Measured("count above norm", auroc(one, two) - norm, "drawn dictionary")]


def _meter(
    config: CountConfig, found: _Trained, sae: Scaled, sets: dict[int, Acts], draw: torch.Generator, *, rare: bool
) -> list[Measured]:
    """The shift scores against the known number of concepts, and on what is far without being a composition."""
    world = found.world
    meter = PointMeter(sae, _site(found, "hidden", found.points), (*CONCEPTS, *BASELINES), least=ACTIVE)

    def scores(points: Acts) -> dict[str, Tensor]:
        own = meter.scores(_site(found, "hidden", points))
        # The network says where it expects a point; its error is minus the log likelihood under equal noise.
        return own | {"input norm": points.norm(dim=1), "nll": _errors(found.net, points)}

    by_size = {m: scores(points) for m, points in sets.items()}
    numbers = torch.cat([torch.full((len(points),), float(m)) for m, points in sets.items()])
    measured: list[Measured] = []
    for name in by_size[1]:
        box = spearman(torch.cat([found_[name] for found_ in by_size.values()]), numbers)
        measured.append(Measured.within("order of the number of concepts", box, name))
    two = by_size[2]
    for kind, points in _far(config, world, sets[2], draw).items():
        other = scores(points)
        measured += aurocs(f"AUROC of {kind} against two concepts", two, other)
        measured += aurocs(f"AUROC of {kind} against one", by_size[1], other)
        measured.append(Measured("loss of the network", float(other["nll"].mean()), kind))
    if rare:
        # Points of their own, which neither the network nor the dictionary has seen.
        which = torch.arange(config.test) % (config.concepts - 1)
        few, many = (
            world.composed(torch.nn.functional.one_hot(c, config.concepts).bool(), draw)
            for c in (torch.full((config.test,), config.concepts - 1), which)
        )
        measured += aurocs(
            "AUROC of the rare cluster against the others",
            scores(many),
            scores(few),
        )
    return [*measured, Measured("loss of the network", float(two["nll"].mean()), "two concepts")]


@torch.no_grad()
def _errors(net: nn.Sequential, points: Acts) -> Float[Tensor, " point"]:
    """Half the squared error of each point."""
    return 0.5 * (net(points) - points).square().sum(1)


def _far(config: CountConfig, world: SimWorld, two: Acts, draw: torch.Generator) -> dict[str, Float[Tensor, "point d"]]:
    """What is no composition: as far as two concepts are, or as far as one is."""
    s, n = config.concepts, config.test
    norms = two.norm(dim=1, keepdim=True)
    inside = torch.randn(n, s, generator=draw)
    inside = inside / inside.norm(dim=1, keepdim=True) @ world.axes * norms
    wide = torch.randn(n, world.axes.shape[1], generator=draw)
    wide = wide - wide @ world.axes.T @ world.axes
    outside = wide / wide.norm(dim=1, keepdim=True) * norms
    one = torch.eye(s)[torch.arange(n) % s]
    noise = torch.randn(n, s, generator=draw) * config.deviation
    return {
        "random directions": inside,
        "orthogonal directions": outside,
        "opposite concepts": (noise - one * world.mu) @ world.axes,
        "doubled concepts": (noise + 2 * one * world.mu) @ world.axes,
    }
