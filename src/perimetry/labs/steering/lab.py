"""The lab: the toy, the personas; what must come out."""

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
from perimetry.labs.steering.expected import ASKED, EXPECTED
from perimetry.labs.steering.panels import distance, dose, personas
from perimetry.labs.steering.personas import BEHAVIOURS, PersonaSizes, run_persona
from perimetry.labs.steering.running import ToySizes, run_toy

__all__ = ["Steering", "SteeringConfig"]


class SteeringConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"toy": 3, "real": 3}, min_length=1)
    """Seeds of the toy, and of the prompts of the real model."""
    arms: tuple[str, ...] = ("toy", "toy_unpushed", "real_cautious")
    """Which arms are run."""
    steps: int = 1500
    """Training steps of the toy."""
    questions: int = 50
    """Its evaluation questions."""
    sae_steps: int = 1500
    """Training steps of its dictionary."""
    latents: int = 256
    """Latents of it."""
    model: str = "smollm2-135m-instruct"
    """The real model: asset name, local folder or hub id."""
    prompts: int = 20
    """Prompts that the real model is tested on."""
    contrasts: int = 30
    """Prompts that its vector is made of."""
    depth: float = Field(default=0.5, ge=0, le=1)
    """Where the vector is read and added, as a share of the model's depth."""
    multipliers: tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
    """Multiples of the vector that are added."""


@final
class Steering(AbstractLab):
    """Steering told from damage."""

    name: ClassVar[str] = "steering"
    title: ClassVar[str] = "An intervention that steers, and one that only damages"
    question: ClassVar[str] = (
        "Does an intervention on activations promote the wanted behaviour and suppress the unwanted one, or does it only damage the model? "
        "And what does a shift score say of it?"
    )
    source: ClassVar[Source] = Source(
        "Towards Reliable Evaluation of Behavior Steering Interventions in LLMs",
        "I. Pres, L. Ruis, E. S. Lubana, D. Krueger",
        "arXiv 2410.17245, MINT workshop at NeurIPS 2024",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": SteeringConfig(),
        "paper": SteeringConfig(
            arms=("toy", "toy_unpushed", *(f"real_{name}" for name in BEHAVIOURS)),
            prompts=50,
            depth=13 / 31,
            multipliers=(-2.0, -1.5, -1.0, 1.0, 1.5, 2.0),
            model="meta-llama/Llama-2-7b-chat-hf",
        ),
        "tiny": SteeringConfig(
            seeds={"toy": 1, "real": 1},
            judged="controls",
            arms=("toy", "toy_unpushed"),
            steps=60,
            questions=20,
            sae_steps=40,
            latents=48,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Toys, then personas."""
        own = own_config(config, SteeringConfig, self.name)
        return jobs_of(own.arms, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed."""
        own = own_config(config, SteeringConfig, self.name)
        if job.arm.startswith("real_"):
            at = PersonaSizes(own.model, own.prompts, own.contrasts, own.depth, own.multipliers)
            return run_persona(at, job.arm.removeprefix("real_"), job.seed)
        sizes = ToySizes(own.steps, own.questions, own.sae_steps, own.latents)
        return run_toy(job.seed, sizes, pushed=job.arm == "toy")

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """Dose, distance, personas."""
        return [dose(found), distance(found), personas(found)]
