"""One arm under one seed: train, measure."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs
from perimetry.labs.sae_geometry.arms import ClusterArm, TreeArm
from perimetry.labs.sae_geometry.fitting import Fitted, Loop, fit, rise_and_fall, train
from perimetry.labs.sae_geometry.seen import geometry, recovery
from perimetry.labs.sae_geometry.worlds import EPSILONS, INNER, OUTER, Clusters, rotated, world_a, world_b, world_c
from perimetry.measures.ranking import auroc
from perimetry.measures.stats import spearman
from perimetry.runtime import generator
from perimetry.sae.base import AbstractSAE, Start
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.matching_pursuit import MatchingPursuitOptions, MatchingPursuitSAE
from perimetry.sae.matryoshka import MatryoshkaOptions, MatryoshkaSAE
from perimetry.sae.standard import StandardSAE
from perimetry.sae.steps.base import Objective

__all__ = ["DIMS", "run_clusters", "run_held_out", "run_tree"]

DIMS: Final = {"b": (2, 6, 14, 30), "b_wide": (6, 14, 30, 62, 126)}
"""Intrinsic dimensions of the clusters of world B."""
HELD = 1
"""The inner cluster of world A that a meter has not seen."""
DEGREES = (0.0, 5.0, 11.25, 22.5, 45.0, 90.0)
TURNED = 2
"""The cluster of world B whose support is turned: 14 dimensions."""


def _world(name: str) -> Clusters:
    if name == "a":
        return world_a()
    return world_b() if name == "b" else world_b(128, DIMS["b_wide"], 0.046875)


def run_clusters(arm: ClusterArm, seed: int, shorten: float, points: int) -> Outcome:
    """A dictionary of a world of clusters."""
    world = _world(arm.world)
    sae = fit(
        arm.kind,
        world.batches(seed, arm.batch),
        width=arm.width,
        d_model=world.centres.shape[1],
        gamma=arm.gamma,
        k=arm.k,
        steps=max(2, round(shorten * arm.steps)),
        seed=seed,
    )
    found = geometry(sae, world, points)
    measured = [
        Measured("lowest F1", float(found.f1.min())),
        Measured("highest F1", float(found.f1.max())),
        Measured("active latents", float(found.l0.mean())),
        Measured("co-activation", found.coactivation),
        Measured("largest error", float(found.nmse.max())),
    ]
    if arm.world == "a":
        measured += [
            Measured("lowest F1 of an outer cluster", float(found.f1[list(OUTER)].min())),
            Measured("highest F1 of an inner cluster", float(found.f1[list(INNER)].max())),
        ]
        names = [str(c) for c in range(6)]
    else:
        names = [f"{d} dimensions" for d in DIMS[arm.world]]
        for name, dim, count in zip(names, DIMS[arm.world], found.l0.tolist(), strict=True):
            measured.append(Measured("active latents over dimension", count / dim, name))
    for name, f1, l0, error in zip(names, found.f1.tolist(), found.l0.tolist(), found.nmse.tolist(), strict=True):
        measured += [
            Measured("F1", f1, name),
            Measured("active latents", l0, name),
            Measured("error", error, name),
        ]
    xs = [float(i) for i in range(6)] if arm.world == "a" else [float(d) for d in DIMS[arm.world]]
    curves = {"F1": Curve(xs, found.f1.tolist()), "active latents": Curve(xs, found.l0.tolist())}
    if arm.turned:
        more = _turned(sae, world, DIMS[arm.world][TURNED], seed, points)
        return Outcome(measured + more.measured, curves | more.curves)
    return Outcome(measured, curves)


def run_tree(arm: TreeArm, seed: int, shorten: float) -> Outcome:
    """A dictionary of the tree."""
    tree = world_c(*EPSILONS[arm.similarity], seed)
    steps = max(2, round(shorten * arm.steps))
    sae, objective, loop, counts = _for_tree(arm, seed, steps)
    train(sae, tree.batches(1000 + seed), objective, loop, counts)
    found = recovery(sae.W_dec, tree)
    return Outcome(
        [
            Measured("lowest match", float(found.matches.min())),
            Measured("mean match", float(found.matches.mean())),
            Measured("absorption", found.absorption),
            Measured("siblings nearer than in truth", found.siblings),
        ],
        {"match": Curve([float(i) for i in range(20)], found.matches.sort(descending=True).values.tolist())},
    )


def _for_tree(arm: TreeArm, seed: int, steps: int):
    """Dictionary, weights, loop, and the active count at a step where it is annealed."""
    loop = Loop(steps, rise_and_fall(steps), betas=(0.5, 0.9375), rows="unit", frozen=("b_dec",))
    start = Start(torch.zeros(20), 20, 1, seed)
    if arm.kind == "matching_pursuit":
        options = MatchingPursuitOptions(residual_threshold=0.05)
        return MatchingPursuitSAE.fresh(start._replace(options=options)), Objective(), loop, None
    if arm.kind == "standard":
        return StandardSAE.fresh(start), Objective(), loop._replace(wanted=1.36), None
    # The published budget falls to 1.36 a point after 1,000 of 15,000 steps; a whole number is what ours take.
    early = steps // 15

    def counts(step: int) -> int:
        return 3 if step < early else 1

    if arm.kind == "batchtopk":
        return BatchTopKSAE.fresh(start), Objective(), loop, counts
    options = MatryoshkaOptions(fractions=(0.2,) * 5)
    return MatryoshkaSAE.fresh(start._replace(options=options)), Objective(), loop, counts


def _scorer(sae: Fitted, world: Clusters, points: int, draw: torch.Generator) -> Callable[[Tensor], dict[str, Tensor]]:
    """The meter, fitted on fresh points of the world, and beside it the world's own density."""
    assert isinstance(sae, AbstractSAE)
    meter = PointMeter(sae, world.draw(points, draw)[0], (*CONCEPTS, *BASELINES))
    return lambda some: meter.scores(some) | {"exact likelihood": world.surprisal(some)}


def run_held_out(arm: ClusterArm, seed: int, shorten: float, points: int) -> Outcome:
    """A dictionary of five clusters of world A, asked about the sixth, about one far away and about the origin."""
    whole = world_a()
    world = whole.without(HELD)
    sae = fit(
        arm.kind, world.batches(seed), width=arm.width, d_model=2, gamma=arm.gamma, k=arm.k,
        steps=max(2, round(shorten * arm.steps)), seed=seed,
    )  # fmt: skip
    draw = generator(200 + seed)
    scores = _scorer(sae, world, points, draw)
    clean = scores(world.draw(points // 4, draw)[0])
    far = 2 * whole.centres[0]
    spread = whole.deviations[0]
    sets = {
        "the held-out inner cluster": whole.of(HELD, points // 4, draw),
        "the far cluster": far + spread * torch.randn(points // 4, 2, generator=draw),
        "the cluster at the origin": whole.centres.mean(0) + spread * torch.randn(points // 4, 2, generator=draw),
        "the same clusters again": world.draw(points // 4, draw)[0],
    }
    measured = [one for kind, some in sets.items() for one in aurocs(f"AUROC of {kind}", clean, scores(some))]
    return Outcome(measured, {})


def _turned(sae: Fitted, world: Clusters, dim: int, seed: int, points: int) -> Outcome:
    """What a meter says of a cluster whose support is turned by growing angles."""
    draw = generator(300 + seed)
    scores = _scorer(sae, world, points, draw)
    clean = scores(world.of(TURNED, points // 4, draw))
    noise = torch.randn(points // 4, world.centres.shape[1], generator=draw)
    by_angle = {angle: scores(rotated(world, TURNED, dim, angle, noise)) for angle in DEGREES}
    measured: list[Measured] = []
    curves: dict[str, Curve] = {}
    for name in clean:
        means = torch.tensor([float(by_angle[angle][name].double().mean()) for angle in DEGREES], dtype=torch.float64)
        order = (
            spearman(means, torch.tensor(DEGREES, dtype=torch.float64)).estimate if means.unique().numel() > 1 else 0.0
        )
        measured.append(Measured("mean score follows the angle", order, name))
        areas = [auroc(clean[name], by_angle[angle][name]) for angle in DEGREES]
        curves[name] = Curve(list(DEGREES), areas)
    for angle in DEGREES:
        measured += aurocs(f"AUROC at {angle:g} degrees", clean, by_angle[angle])
    return Outcome(measured, curves)
