"""The lab: which mixtures, what is measured of each, what must come out."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from pydantic import Field
from torch import Tensor

from perimetry.errors import UsageError
from perimetry.labs.base import AbstractLab, Asked, Curve, Expectation, Job, LabConfig, Measured, Outcome, Panel, Source
from perimetry.labs.markov_mixture.algorithms import algorithm_matrices, matrix_kl
from perimetry.labs.markov_mixture.attachment import Attached, Attachment, attach, optimal_areas, separation, tests_of
from perimetry.labs.markov_mixture.expected import ASKED, EXPECTED
from perimetry.labs.markov_mixture.panels import against_optimum, phases
from perimetry.labs.markov_mixture.phases import (
    Contexts,
    Phase,
    contexts_of,
    fixed,
    phase_of,
    resampled,
    retrieves,
    silly,
)
from perimetry.labs.markov_mixture.training import MarkovArm, looks, train_states
from perimetry.labs.markov_mixture.world import Mixture
from perimetry.measures.stats import wilson
from perimetry.runtime import generator

__all__ = ["MarkovConfig", "MarkovMixture"]

PUBLISHED = {
    "states": 10,
    "length": 512,
    "steps": 107_979,
    "width": 64,
    "heads": 4,
    "vocab": 676,
    "tied": True,
    "batch": 128,
    "lr": 6e-4,
    "published": True,
}
ARMS: dict[str, MarkovArm] = {
    "n4": MarkovArm(chains=4, steps=1500),
    "n32": MarkovArm(chains=32, steps=6000),
    "n512": MarkovArm(chains=512, steps=2000),
    "n32_uniform": MarkovArm(chains=32, steps=6000, prior="uniform"),
    **{
        f"published_{positions}_n{2**e}": MarkovArm.model_validate(
            {"chains": 2**e, "positions": positions, **PUBLISHED}
        )
        for positions in ("rotary", "learned")
        for e in range(2, 12)
    },
}


class MarkovConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"mixture": 3}, min_length=1)
    """Seeds of each mixture."""
    arms: tuple[str, ...] = ("n4", "n32", "n512")
    """Which mixtures, by name."""
    shorten: float = 1.0
    """Share of its steps that a model is trained for."""
    looks: int = 22
    """Looks at a model, on a logarithmic scale of steps."""
    contexts: int = 300
    """Contexts of each kind at a look."""
    attached: int = 5
    """Looks at which the meter is attached, the last one too."""
    layer: int = 1
    """Block whose output it reads."""
    latents: int = 128
    """Latents of its dictionary."""
    sae_steps: int = 1200
    """Training steps of the dictionary, of 512 tokens."""
    reference: int = 1200
    """Sequences that dictionary and scores are fitted on."""
    tests: int = 1500
    """Test sequences of each kind."""
    lengths: tuple[int, ...] = (5, 10, 25, 50, 100)
    """Lengths of context that are scored."""


@final
class MarkovMixture(AbstractLab):
    """Retrieval and inference in context, and what a shift score sees of them."""

    name: ClassVar[str] = "markov-mixture"
    title: ClassVar[str] = "Which algorithm runs in context, and what the best possible detector would see"
    question: ClassVar[str] = (
        "A transformer trained on n Markov chains may retrieve a chain or infer its steps from the context. Which does it do when, does "
        "that foretell its error on unseen chains, and does a shift score see inputs that are new, or only those that the model treats as new?"
    )
    source: ClassVar[Source] = Source(
        "Competition Dynamics Shape Algorithmic Phases of In-Context Learning",
        "Core Francisco Park, Ekdeep Singh Lubana, Itamar Pres, Hidenori Tanaka",
        "arXiv 2412.01003, ICLR 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": MarkovConfig(),
        "paper": MarkovConfig(
            arms=("n32_uniform", *(name for name in ARMS if name.startswith("published"))),
            looks=50,
            contexts=30,
            lengths=(10, 40, 100, 200, 400),
        ),
        "tiny": MarkovConfig(
            seeds={"mixture": 1},
            judged="controls",
            arms=("n4", "n512"),
            shorten=0.02,
            looks=2,
            contexts=40,
            attached=1,
            latents=48,
            sae_steps=60,
            reference=120,
            tests=400,
            lengths=(10, 50),
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """A mixture under a seed each."""
        own = _own(config)
        return [Job(arm, seed) for arm in own.arms for seed in range(own.seeds["mixture"])]

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """Train one model, and look at it."""
        own, arm = _own(config), ARMS[job.arm]
        mixture = arm.mixture(job.seed)
        contexts = contexts_of(mixture, own.contexts, arm.length, job.seed)
        measured = _lines(contexts)
        at = _attachment(own, mixture, arm, job.seed)
        measured += optimal_areas(mixture, at.tests, at.contexts)
        best = {
            length: next(m.value for m in measured if m.case == f"likelihood ratio, fresh, context {length}")
            for length in at.contexts
        }
        measured.append(_untrained(arm, contexts, job.seed))
        steps = looks(max(2, round(own.shorten * arm.steps)), own.looks)
        attached = set(steps[:: -max(1, len(steps) // own.attached)][: own.attached])
        seen: dict[int, Phase] = {}
        read: dict[int, Attached] = {}
        for step, model in train_states(arm, mixture, job.seed, steps):
            seen[step] = phase_of(model, contexts)
            if step in attached:
                read[step] = attach(model, at, job.seed)
            if step == steps[-1]:
                measured += _silly(silly(model, contexts))
                measured += _without(phase_of(model, contexts, without="Bi-Inf"), seen[step])
                measured += _mix(seen[step], resampled(model, contexts, job.seed))
                measured.append(_retrieved(retrieves(model, contexts, job.seed)))
        measured += _phases(seen, fixed(contexts)) + _attached(read, best, steps[-1])
        return Outcome(measured, _curves(seen, read, best))

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:
        """The phases, and the share of what is possible that each score reaches."""
        return [*phases(found, _own(config).arms), *against_optimum(found, _own(config).arms)]


def _own(config: LabConfig) -> MarkovConfig:
    if not isinstance(config, MarkovConfig):
        raise UsageError(
            f"the lab markov-mixture wants a MarkovConfig, got {type(config).__name__}; take one of its presets"
        )
    return config


def _attachment(config: MarkovConfig, mixture: Mixture, arm: MarkovArm, seed: int) -> Attachment:
    reference = mixture.known(config.reference, arm.length, generator(32_452_843 + seed))
    lengths = tuple(length for length in config.lengths if length <= arm.length)
    tests = tests_of(mixture, config.tests, arm.length, seed)
    return Attachment(reference.ids, reference.chain, tests, lengths, config.layer, config.latents, config.sae_steps)


def _lines(contexts: Contexts) -> list[Measured]:
    """What each algorithm by itself would reach."""
    mixture = contexts.mixture
    found: list[Measured] = []
    for name, matrices in contexts.fresh_by.items():
        value = float(matrix_kl(matrices, contexts.fresh_chains, contexts.fresh.chain).mean())
        found.append(Measured("KL of an algorithm", value, f"{name}, unseen"))
    for name, matrices in contexts.known_by.items():
        value = float(matrix_kl(matrices, mixture.chains, contexts.known.chain).mean())
        found.append(Measured("KL of an algorithm", value, f"{name}, mixture"))
    for length in (10, 50):
        short = algorithm_matrices(mixture, contexts.fresh.ids[:, :length])["Bi-Inf"]
        value = float(matrix_kl(short, contexts.fresh_chains, contexts.fresh.chain).mean())
        found.append(Measured("KL of an algorithm", value, f"Bi-Inf, unseen, context {length}"))
    return found


def _untrained(arm: MarkovArm, contexts: Contexts, seed: int) -> Measured:
    """How far an untrained model is above Uni-Inf."""
    phase = phase_of(arm.model(seed), contexts)
    uniform = contexts.fresh_by["Uni-Inf"]
    other = float(matrix_kl(uniform, contexts.fresh_chains, contexts.fresh.chain).mean())
    return Measured("untrained minus Uni-Inf", phase.fresh - other)


def _silly(weights: dict[str, float]) -> list[Measured]:
    return [Measured("weight of a silly algorithm", weights[name], name) for name in ("even", "again")]


def _without(phase: Phase, whole: Phase) -> list[Measured]:
    """What the mix foretells where the algorithm that infers steps may not take part."""
    return [
        Measured("error of foretelling without Bi-Inf", abs(phase.foretold - whole.fresh)),
        Measured("error of foretelling", abs(whole.foretold - whole.fresh), "last look"),
    ]


def _mix(last: Phase, ends: Mapping[str, tuple[float, float]]) -> list[Measured]:
    """The mix at the end, with intervals over contexts."""
    return [Measured("weight", weight, name, *ends[name]) for name, weight in last.weights.items()]


def _retrieved(nearer: Tensor) -> Measured:
    """Share of unseen chains on which the model answers with a chain of the mixture; a half where it does not retrieve."""
    box = wilson(int(nearer.sum()), len(nearer))
    return Measured("nearer to the mixture than to drawn chains", box.estimate, "", box.low, box.high, box.n)


def _phases(seen: Mapping[int, Phase], even: float) -> list[Measured]:
    """Where the run ends, how its error on unseen chains went, and how well the mix foretold it; `even`: what even weights foretell."""
    steps = sorted(seen)
    last = seen[steps[-1]]
    fresh = [seen[s].fresh for s in steps]
    low = min(range(len(steps)), key=lambda i: fresh[i])
    found = [
        Measured("KL on the mixture", last.known),
        Measured("KL on unseen chains", last.fresh),
        Measured("KL apart", abs(last.known - last.fresh)),
        Measured("KL on shuffled contexts", last.shuffled),
        Measured("rise after the least KL on unseen chains", fresh[-1] / fresh[low] - 1),
        Measured("fall on the mixture meanwhile", seen[steps[low]].known - last.known),
        Measured("residual of the mix", last.residual),
        *(Measured("weight on unseen chains", w, name) for name, w in last.fresh_weights.items()),
    ]
    # The induction transition: the error on unseen chains falls below three quarters of what it was near step 100.
    begin = min(steps, key=lambda s: abs(s - 100))
    after = [s for s in steps if s > begin and seen[s].fresh < 0.75 * seen[begin].fresh]
    errors = {s: seen[s].foretold - seen[s].fresh for s in steps}
    if after:
        later = [abs(errors[s]) for s in steps if s >= after[0]]
        before = [abs(errors[s]) for s in steps if s < after[0]]
        found.append(Measured("error of foretelling", sum(later) / len(later), "after the transition"))
        flat = [abs(even - seen[s].fresh) for s in steps if s >= after[0]]
        found.append(Measured("error of foretelling by even weights", sum(flat) / len(flat), "after the transition"))
        found.append(Measured("step of the transition", float(after[0])))
        if before:
            found.append(Measured("error of foretelling", sum(before) / len(before), "before the transition"))
    return found


def _attached(read: Mapping[int, Attached], best: Mapping[int, float], last: int) -> list[Measured]:
    """The last look in full; of every look the share of what is possible."""
    found: list[Measured] = []
    for step, attached in sorted(read.items()):
        shares = separation(attached.areas["fresh"], best)
        for name, own in shares.items():
            if own:
                mean = sum(own.values()) / len(own)
                place = "last look" if step == last else f"step {step}"
                found.append(Measured("share of the optimum", mean, f"{name}, {place}"))
    final = read[last]
    found += final.rows
    for label, (most, mean) in final.informed.items():
        found.append(Measured("information of a latent", most, f"{label}, most"))
        found.append(Measured("information of a latent", mean, f"{label}, mean"))
    return found


def _curves(seen: Mapping[int, Phase], read: Mapping[int, Attached], best: Mapping[int, float]) -> dict[str, Curve]:
    steps = sorted(seen)
    xs = [float(s) for s in steps]
    curves = {
        "mixture": Curve(xs, [seen[s].known for s in steps]),
        "unseen": Curve(xs, [seen[s].fresh for s in steps]),
        "foretold": Curve(xs, [seen[s].foretold for s in steps]),
        **{name: Curve(xs, [seen[s].weights[name] for s in steps]) for name in seen[steps[0]].weights},
    }
    shares = {step: separation(attached.areas["fresh"], best) for step, attached in sorted(read.items())}
    for name in next(iter(shares.values()), {}):
        ys = [sum(own[name].values()) / len(own[name]) for own in shares.values() if own[name]]
        if ys:
            curves[f"share, {name}"] = Curve([float(s) for s in shares], ys)
    return curves
