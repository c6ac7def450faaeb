"""The lab: a theory of two concepts, and discs; what must come out."""

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
    Outcome,
    Panel,
    Source,
    jobs_of,
    own_config,
)
from perimetry.labs.concept_space.attachment import AttachConfig
from perimetry.labs.concept_space.expected import ASKED, EXPECTED
from perimetry.labs.concept_space.images import World
from perimetry.labs.concept_space.panels import hidden, sooner, theory, way
from perimetry.labs.concept_space.running import SIGNALS, ImageSizes, run_images, run_signals
from perimetry.labs.concept_space.theory import run_theory

__all__ = ["ConceptConfig", "ConceptSpace"]

SHUFFLED = 0.5
"""Signal of the control whose conditions say nothing."""
LONG = 17
"""How many times longer the published training is."""


class ConceptConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"theory": 3, "images": 3}, min_length=1)
    """Seeds of each kind of arm."""
    arms: tuple[str, ...] = ("images", "images_shuffled", "theory_linear", "theory_mlp")
    """Which arms are run."""
    signals: tuple[float, ...] = SIGNALS
    """Differences of the colours."""
    theory_steps: int = 3000
    """Steps of the theory."""
    each: int = 2048
    """Training images of a class."""
    steps: int = 1200
    """Training steps of a denoiser."""
    every: int = 60
    """Steps between two looks at it."""
    judge: int = 600
    """Training steps of the classifier."""
    meters: int = 4
    """Looks at which the meter is attached."""
    conditions: int = 8000
    """Conditions of each class that its dictionary is made of."""
    tests: int = 500
    """Test conditions of each kind."""
    latents: int = 256
    """Latents of the dictionary."""
    sae_steps: int = 2000
    """Its training steps, of 512 conditions."""


@final
class ConceptSpace(AbstractLab):
    """The order of concepts, and combinations that were never seen."""

    name: ClassVar[str] = "concept-space"
    title: ClassVar[str] = "An unseen combination: unsupported, and is it wrong?"
    question: ClassVar[str] = (
        "In what order does a conditional generator learn independent concepts, and can it make a combination that it never saw before a plain "
        "prompt shows it? To a score that combination is new by definition: is it therefore wrong?"
    )
    source: ClassVar[Source] = Source(
        "Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space",
        "Core Francisco Park, Maya Okawa, Andrew Lee, Ekdeep Singh Lubana, Hidenori Tanaka",
        "arXiv 2406.19370, NeurIPS 2024",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": ConceptConfig(),
        "paper": ConceptConfig(
            seeds={"theory": 5, "images": 5},
            arms=("images", "images_long", "images_shuffled", "theory_linear", "theory_mlp"),
            signals=tuple(round(0.1 + 0.05 * i, 2) for i in range(15)),
        ),
        "tiny": ConceptConfig(
            seeds={"theory": 1, "images": 1},
            judged="controls",
            theory_steps=800,
            signals=(0.2, 0.3, 0.5, 0.8),
            each=128,
            steps=60,
            every=20,
            judge=100,
            meters=1,
            conditions=400,
            tests=150,
            latents=48,
            sae_steps=60,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Images first: they take longest."""
        own = own_config(config, ConceptConfig, self.name)
        return jobs_of(own.arms, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed."""
        own = own_config(config, ConceptConfig, self.name)
        if job.arm == "theory_linear":
            return run_theory("linear", job.seed, own.theory_steps)
        if job.arm == "theory_mlp":
            return run_theory("mlp", job.seed, own.theory_steps)
        at = AttachConfig(own.conditions, own.tests, own.latents, own.sae_steps)
        sizes = ImageSizes(own.each, own.steps, own.every, own.judge, own.meters, at)
        if job.arm == "images_shuffled":
            return run_images(World(SHUFFLED), job.seed, sizes._replace(meters=0), shuffled=True)
        if job.arm == "images_long":
            return run_signals(job.seed, sizes._replace(steps=LONG * own.steps, meters=0), SIGNALS)
        return run_signals(job.seed, sizes, own.signals)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """The way to the combination, its time, the theory, the score."""
        return [way(found), hidden(found), sooner(found), theory(found)]
