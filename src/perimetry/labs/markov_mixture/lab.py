"""The lab: which mixtures, what is measured of each, what must come out."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from pydantic import Field

from perimetry.labs.base import (
    AbstractLab,
    Asked,
    Expectation,
    Job,
    LabConfig,
    Measured,
    Outcome,
    Panel,
    Source,
    own_config,
)
from perimetry.labs.markov_mixture.attachment import Attached, Attachment, attach, optimal_areas, tests_of
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
from perimetry.labs.markov_mixture.summary import (
    attached_numbers,
    curves_of,
    facts_of,
    lines_of,
    mix,
    phase_numbers,
    placed,
    retrieved,
    shares_of,
    silly_weights,
    untrained,
    without_inference,
)
from perimetry.labs.markov_mixture.training import MarkovArm, looks, train_states
from perimetry.labs.markov_mixture.world import Mixture
from perimetry.labs.nano import Nano
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
FAST = {"batch": 32, "lr": 2e-3, "deviation": 0.1}
"""For two cores and minutes, chosen on seeds of its own: all phases come in half of the steps, each of half the sequences."""
STEPS = {4: 600, 32: 3200, 512: 1900}
ARMS: dict[str, MarkovArm] = {
    **{f"n{n}": MarkovArm.model_validate({"chains": n, "steps": steps, **FAST}) for n, steps in STEPS.items()},
    "n32_uniform": MarkovArm.model_validate({"chains": 32, "steps": STEPS[32], "prior": "uniform", **FAST}),
    **{f"n{n}_long": MarkovArm(chains=n, steps=steps) for n, steps in ((4, 1500), (32, 6000), (512, 2000))},
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
    layers: tuple[int, ...] = Field(default=(1, 0), min_length=1)
    """Blocks whose output it reads: the first at every such look, the others at the last one only."""
    betas: tuple[float, ...] = (100.0, 10.0)
    """How near the chains are that are drawn around those of the mixture; more is nearer."""
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
        "quick": MarkovConfig(looks=14, attached=3, sae_steps=400, reference=1000, tests=1000),
        "paper": MarkovConfig(
            arms=(
                "n4",
                "n32",
                "n512",
                "n32_uniform",
                "n4_long",
                "n32_long",
                "n512_long",
                *(name for name in ARMS if name.startswith("published")),
            ),
            looks=50,
            contexts=30,
            betas=(1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0),
            lengths=(5, 10, 25, 40, 50, 100, 200, 400),
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
        """A mixture under a seed each; what takes longest comes first, so that no process is left with it alone."""
        own = own_config(config, MarkovConfig, self.name)
        order = sorted(own.arms, key=lambda arm: -ARMS[arm].steps)
        return [Job(arm, seed) for arm in order for seed in range(own.seeds["mixture"])]

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """Train one model, and look at it."""
        own, arm = own_config(config, MarkovConfig, self.name), ARMS[job.arm]
        mixture = arm.mixture(job.seed)
        contexts = contexts_of(mixture, own.contexts, arm.length, job.seed)
        measured = lines_of(contexts)
        at = _attachment(own, mixture, arm, job.seed)
        measured += optimal_areas(mixture, at.tests, at.contexts)
        best = {
            length: next(m.value for m in measured if m.case == f"likelihood ratio, fresh, context {length}")
            for length in at.contexts
        }
        measured.append(untrained(arm, contexts, job.seed))
        steps = looks(max(2, round(own.shorten * arm.steps)), own.looks)
        attached = set(steps[:: -max(1, len(steps) // own.attached)][: own.attached])
        seen: dict[int, Phase] = {}
        read: dict[int, Attached] = {}
        for step, model in train_states(arm, mixture, job.seed, steps):
            seen[step] = phase_of(model, contexts)
            if step in attached:
                read[step] = attach(model, at if step == steps[-1] else at.brief(), job.seed)
            if step == steps[-1]:
                measured += _at_end(model, contexts, seen[step], job.seed)
                for layer in own.layers[1:]:
                    other = attach(model, at.brief()._replace(layer=layer), job.seed)
                    measured += [*shares_of(other, best, f"block {layer}"), *facts_of(other, f", block {layer}")]
        measured += (
            phase_numbers(seen, fixed(contexts))
            + placed(seen[steps[-1]], measured)
            + attached_numbers(read, best, steps[-1])
        )
        return Outcome(measured, curves_of(seen, read, best))

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:
        """The phases, and the share of what is possible that each score reaches."""
        return [
            *phases(found, own_config(config, MarkovConfig, self.name).arms),
            *against_optimum(found, own_config(config, MarkovConfig, self.name).arms),
        ]


def _at_end(model: Nano, contexts: Contexts, last: Phase, seed: int) -> list[Measured]:
    """What is asked of the trained model only."""
    return [
        *silly_weights(silly(model, contexts)),
        *without_inference(phase_of(model, contexts, without="Bi-Inf"), last),
        *mix(last, resampled(model, contexts, seed)),
        retrieved(retrieves(model, contexts, seed)),
    ]


def _attachment(config: MarkovConfig, mixture: Mixture, arm: MarkovArm, seed: int) -> Attachment:
    reference = mixture.known(config.reference, arm.length, generator(32_452_843 + seed))
    lengths = tuple(length for length in config.lengths if length <= arm.length)
    tests = tests_of(mixture, config.tests, arm.length, seed, config.betas)
    return Attachment(
        reference.ids, reference.chain, tests, lengths, config.layers[0], config.latents, config.sae_steps
    )
