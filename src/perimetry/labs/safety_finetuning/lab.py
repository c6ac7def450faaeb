"""The lab: ways of fine-tuning, and what must come out."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, final

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
from perimetry.labs.safety_finetuning.attachment import AttachConfig
from perimetry.labs.safety_finetuning.expected import ASKED, EXPECTED
from perimetry.labs.safety_finetuning.models import Method, Rate, SafetyArm
from perimetry.labs.safety_finetuning.panels import apart, refusing, sides, steep
from perimetry.labs.safety_finetuning.running import SafetySizes, run_method

__all__ = ["SafetyConfig", "SafetyFinetuning"]

PUBLISHED: Final = SafetyArm(
    world="grammars",
    context=160,
    layers=6,
    heads=6,
    width=192,
    deviation=0.02,
    steps=100_000,
    batch=512,
    lr=1e-3,
    lowest=1e-6,
    warmup=10_000,
    fall="cosine",
    begin=(0.5, 0.1, 0.2, 0.2),
    end=(0.1, 0.2, 0.3, 0.4),
    tuning=10_000,
    tuning_batch=512,
    medium=1e-4,
    small=1e-5,
)
METHODS: Final[dict[str, Method]] = {
    "plain": "plain",
    "dpo": "dpo",
    "unlearn": "unlearn",
    "ssft": "ssft",
    "published_plain": "plain",
    "published_dpo": "dpo",
    "published_unlearn": "unlearn",
    "published_ssft": "ssft",
    "published_ssft_80": "ssft",
}
"""Arms and what they do. Plain fine-tuning comes first, whose models the others of a seed share; then what takes longest."""


class SafetyConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"plain": 3, "dpo": 3, "unlearn": 3, "ssft": 3, "published": 3}, min_length=1)
    """Seeds of each kind of arm."""
    arms: tuple[str, ...] = ("plain", "dpo", "unlearn", "ssft")
    """Which arms are run."""
    small: SafetyArm = SafetyArm()
    """The small world and its model."""
    published: SafetyArm = PUBLISHED
    """The published ones."""
    shorten: float = 1.0
    """Share of its updates that a model is trained and fine-tuned for."""
    tests: int = 256
    """Prompts of each kind that are measured."""
    reference: int = 1024
    """Prompts that the meter is fitted on."""
    latents: int = 256
    """Latents of its dictionary."""
    sae_steps: int = 800
    """Its training steps, of 512 tokens."""
    metered: tuple[Rate, ...] = ("small",)
    """Rates at which the meter is asked."""


@final
class SafetyFinetuning(AbstractLab):
    """Refusal, and what passes."""

    name: ClassVar[str] = "safety-finetuning"
    title: ClassVar[str] = "How a model comes to refuse, and what passes all the same"
    question: ClassVar[str] = (
        "Safety fine-tuning makes a model refuse what task and text together make unsafe. Do the activations of attacks that pass lie on the "
        "safe side, and are attacks out of distribution at all?"
    )
    source: ClassVar[Source] = Source(
        "What Makes and Breaks Safety Fine-tuning? A Mechanistic Study",
        "Samyak Jain, Ekdeep Singh Lubana, Kemal Oksuz, Tom Joy, Philip H. S. Torr, Amartya Sanyal, Puneet K. Dokania",
        "arXiv 2407.10264, NeurIPS 2024",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": SafetyConfig(),
        "paper": SafetyConfig(
            arms=tuple(METHODS),
            published=PUBLISHED.model_copy(update={"device": "cuda"}),
            metered=("medium", "small"),
            tests=1000,
        ),
        "tiny": SafetyConfig(
            seeds={"plain": 1, "dpo": 1, "unlearn": 1, "ssft": 1},
            judged="controls",
            small=SafetyArm(layers=2, width=32, least=0.0),
            shorten=0.03,
            tests=48,
            reference=64,
            latents=48,
            sae_steps=40,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """What others build on first, then what takes longest."""
        own = own_config(config, SafetyConfig, self.name)
        return jobs_of(sorted(own.arms, key=list(METHODS).index), own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One way of fine-tuning under one seed."""
        own = own_config(config, SafetyConfig, self.name)
        published = job.arm.startswith("published")
        arm = own.published if published else own.small
        if job.arm.endswith("_80"):
            arm = arm.model_copy(update={"safe": 0.8})
        at = AttachConfig(own.reference, own.tests, own.latents, own.sae_steps)
        first, second = (max(4, round(own.shorten * n)) for n in (arm.steps, arm.tuning))
        sizes = SafetySizes(first, second, own.tests, at, own.metered)
        return run_method(arm, METHODS[job.arm], job.seed, sizes, folder.parent, "published" if published else "small")

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """Classes apart, attacks, steepness, refusal."""
        return [apart(found), sides(found), steep(found), refusing(found)]
