"""The lab: which worlds, what is measured of each, what must come out."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from pydantic import Field

from perimetry.labs.base import (
    AbstractLab,
    Asked,
    Curve,
    Expectation,
    Job,
    LabConfig,
    Measured,
    Outcome,
    Panel,
    Source,
    own_config,
)
from perimetry.labs.points import evidence_of, recipe_of, train_on_points
from perimetry.labs.swing_by.arms import NETWORKS, SIZES
from perimetry.labs.swing_by.counts import ACTIVE, CountConfig, run_count
from perimetry.labs.swing_by.expected import ASKED, EXPECTED
from perimetry.labs.swing_by.networks import EVERY, Watched, above_least, make_network, rebound, train_network
from perimetry.labs.swing_by.panels import WATCHED, counted, decomposed, swing, watched
from perimetry.labs.swing_by.theory import Descent, one_layer, one_layer_exact, parts_of, turn_of, two_layers
from perimetry.labs.swing_by.world import WIDE

__all__ = ["SwingBy", "SwingByConfig"]

DEVIATION = 0.05
RISEN = 1.02
"""A loss that rises by less than a fiftieth is not called a swing."""


class SwingByConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"theory": 20, "deep_linear": 10, "network": 5, "count": 3}, min_length=1)
    """Seeds of each kind of arm."""
    theory: tuple[str, ...] = tuple(SIZES)
    """Which sizes of concepts the theory is run with."""
    networks: tuple[str, ...] = tuple(name for name in NETWORKS if not name.startswith("published"))
    """Which networks are trained, by name."""
    points: int = 5000
    """Training points of a cluster for the networks."""
    shorten: float = 1.0
    """Share of their steps that networks and theory are run for."""
    count: CountConfig = CountConfig()
    """The counting arm."""
    count_arms: tuple[str, ...] = ("count", "count_rare")
    """Which of the counting arms are run."""
    watch: int = 1500
    """Steps, of 256 points, of the dictionary that watches an output while a network learns; 0 leaves it out."""


@final
class SwingBy(AbstractLab):
    """Loss on a new composition of known concepts, and what counts concepts there."""

    name: ClassVar[str] = "swing-by"
    title: ClassVar[str] = "Loss on a new composition can fall, rise and fall again"
    question: ClassVar[str] = (
        "Training loss falls all the time. Does the loss on an unseen combination of known concepts? And where the number of concepts "
        "in an input is known, does the count of active latents tell it?"
    )
    source: ClassVar[Source] = Source(
        "Swing-by Dynamics in Concept Learning and Compositional Generalization",
        "Yongyi Yang, Core Francisco Park, Ekdeep Singh Lubana, Maya Okawa, Wei Hu, Hidenori Tanaka",
        "arXiv 2410.08309, ICLR 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        # Batches of a quarter: the published ones are for hours.
        "quick": SwingByConfig(count=CountConfig(sae_batch=256)),
        "paper": SwingByConfig(networks=tuple(NETWORKS)),
        "tiny": SwingByConfig(
            seeds={"theory": 2, "deep_linear": 1, "network": 1, "count": 1},
            judged="controls",
            theory=("1_2",),
            networks=("deep_linear", "net_one_layer", "net_two_default"),
            points=400,
            shorten=0.25,
            count=CountConfig(
                concepts=4,
                points=300,
                hidden=32,
                steps=300,
                penalties=(0.05,),
                latents=48,
                latents_x=16,
                sae_steps=120,
                sae_batch=256,
                test=120,
            ),
            count_arms=("count",),
            watch=60,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Theory first, then networks, then counting."""
        own = own_config(config, SwingByConfig, self.name)
        theory = [f"{kind}_{name}" for name in own.theory for kind in ("two_layers", "one_layer")]
        found = [Job(arm, seed) for arm in theory for seed in range(own.seeds["theory"])]
        for arm in own.networks:
            kind = arm if arm in own.seeds else "network"
            kind = "deep_linear" if arm == "net_one_layer" else kind
            found += [Job(arm, seed) for seed in range(own.seeds[kind])]
        return found + [Job(arm, seed) for arm in own.count_arms for seed in range(own.seeds["count"])]

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed; each takes seconds, so nothing is kept half way."""
        own = own_config(config, SwingByConfig, self.name)
        if job.arm in NETWORKS:
            return _network(own, job)
        if job.arm.startswith("count"):
            return run_count(own.count, job.seed, rare=job.arm == "count_rare")
        return _theory(own, job)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:
        """The swing, the theory under it, and the counts."""
        return [
            panel
            for panel in (
                swing(found),
                decomposed(found),
                counted(found, own_config(config, SwingByConfig, self.name).count.penalties),
                watched(found),
            )
            if panel.lines
        ]


def _theory(config: SwingByConfig, job: Job) -> Outcome:
    layers, _, name = job.arm.partition("_layers_") if "_layers_" in job.arm else job.arm.partition("_layer_")
    mu = np.array(SIZES[name])
    a = DEVIATION**2 + mu**2 / len(mu)
    draw = np.random.default_rng(job.seed)
    run = two_layers if layers == "two" else one_layer
    steps = max(2, round(config.shorten * (12_000 if layers == "two" else 6000)))
    found = run(mu, a, draw, steps=steps)
    turn = turn_of(found.loss)
    measured = [
        Measured("rebound", turn.rebound),
        Measured("swing", float(turn.rebound > RISEN)),
        Measured("last loss", float(found.loss[-1])),
        Measured("training loss falls", float((np.diff(found.train) <= 1e-15).all())),
    ]
    xs = [float(step) for step in found.kept]
    curves = {"loss": Curve(xs, found.loss[list(found.kept)].tolist())}
    if layers == "two":
        curves |= _moved(found, a, xs)
    else:
        measured.append(Measured("distance from the exact solution", _distance(found, mu, a)))
    return Outcome(measured, curves)


def _moved(found: Descent, a: np.ndarray, xs: list[float]) -> dict[str, Curve]:
    """What moves the entry that takes the last concept to the first, over time."""
    parts = [parts_of(w, a) for w in found.weights]
    several = {name: [float(getattr(p, name)[0, -1]) for p in parts] for name in ("growth", "suppression", "noise")}
    several["off the diagonal"] = [float(w[0, -1]) for w in found.weights]
    return {name: Curve(xs, ys) for name, ys in several.items()}


def _distance(found: Descent, mu: np.ndarray, a: np.ndarray) -> float:
    """Largest distance of the output at the test point from what that many steps give in closed form."""
    outputs = [
        np.abs(w @ mu - one_layer_exact(found.weights[0], mu, (1 - 0.005 * a) ** step)).max()
        for w, step in zip(found.weights, found.kept, strict=True)
    ]
    return float(max(outputs))


def _network(config: SwingByConfig, job: Job) -> Outcome:
    arm = NETWORKS[job.arm]
    world = arm.world(job.seed)
    points, _ = world.train([config.points] * world.clusters, job.seed)
    net = make_network(arm, WIDE, job.seed)
    steps = max(2 * EVERY, round(config.shorten * arm.steps))
    seen = train_network(net, points, world, steps=steps, lr=arm.lr, batch=arm.batch, seed=job.seed, loss=arm.loss)
    falls = all(b <= a for a, b in itertools.pairwise(seen.train))
    ratio = rebound(seen.loss)
    measured = [
        Measured("rebound", ratio),
        Measured("swing", float(ratio > 1.05)),
        Measured("last loss", seen.loss[-1]),
        Measured("training loss falls", float(falls)),
    ]
    learned = [_learned(seen, p, float(world.mu[p])) for p in range(world.concepts)]
    measured += [Measured("learning time", t, f"concept {p + 1}") for p, t in enumerate(learned) if t is not None]
    first, second = (t if t is not None else float("inf") for t in learned[:2])
    if first != second:
        measured.append(Measured("second concept first", float(second < first)))
    keep = list(range(0, len(seen.loss), max(1, len(seen.loss) // 240)))
    xs = [float(i) for i in keep]
    curves = {"loss": Curve(xs, [seen.loss[i] for i in keep])}
    if config.watch and job.arm in WATCHED:
        read, curve = _watched(config, job, points, seen, keep)
        measured += read
        curves["count"] = curve
    return Outcome(measured, curves)


def _learned(seen: Watched, concept: int, size: float) -> float | None:
    """First step at which the output holds half of a concept; None where it never does."""
    there = (seen.along[:, concept] >= size / 2).nonzero()
    return float(there[0]) if len(there) else None


def _watched(
    config: SwingByConfig, job: Job, points: torch.Tensor, seen: Watched, keep: list[int]
) -> tuple[list[Measured], Curve]:
    """Active latents of the output at the test point while the network learns, by a dictionary of the inputs."""
    recipe = recipe_of("standard", width=32, k=4, steps=config.watch, batch=256, seed=job.seed, lr=1e-3, sparsity=0.05)
    sae = train_on_points(points, recipe)
    counts = evidence_of(sae.sae, sae.inputs(seen.outputs[keep]), ACTIVE).codes.count().tolist()
    # Where the loss stood highest above its running minimum, and that minimum: a single step up is noise.
    loss = [seen.loss[i] for i in keep]
    high = int(above_least(loss).argmax())
    names = ("at the least loss before the rise", "at the top of the rise", "at the end")
    places = (int(np.argmin(loss[: high + 1])), high, len(keep) - 1)
    measured = [Measured("count of the output", counts[at], name) for name, at in zip(names, places, strict=True)]
    return measured, Curve([float(i) for i in keep], counts)
