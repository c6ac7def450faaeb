"""The lab: what editors promise, a model of three orders under every editor; what must come out."""

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
from perimetry.labs.knowledge_editing.algebra import run_algebra
from perimetry.labs.knowledge_editing.attachment import MeterSizes
from perimetry.labs.knowledge_editing.expected import ASKED, EXPECTED
from perimetry.labs.knowledge_editing.measures import ReaderSizes
from perimetry.labs.knowledge_editing.models import BaseConfig
from perimetry.labs.knowledge_editing.panels import distances, lost, meter, mixed
from perimetry.labs.knowledge_editing.real import RealSizes, run_real, run_scaled
from perimetry.labs.knowledge_editing.running import EditingSizes, run_editing

__all__ = ["ARMS", "EditingConfig", "KnowledgeEditing"]

ARMS: Final = {
    "editing": BaseConfig(),
    "editing_long": BaseConfig(batch=256, steps=6000, lr=3e-3, deviation=0.02, relations=1.0),
    "editing_published": BaseConfig(
        entities=2048, width=24, heads=12, batch=256, steps=150_000, lr=3e-3, deviation=0.02, relations=1.0
    ),
}
"""Worlds and models: for minutes; as the rebuild has it; at the published size."""


class EditingConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"editing": 3, "algebra": 3, "real": 3}, min_length=1)
    """Seeds of each kind of arm."""
    arms: tuple[str, ...] = ("editing", "real", "algebra")
    """Which arms are run."""
    steps: int | None = None
    """Training steps of a model; None: those of its arm."""
    each: int = 10
    """Facts that are edited for each distance between old and new answer."""
    first: int = 4
    """The same in the first block, where every reading takes longer."""
    corrections: int = 10
    """Most wrong answers that are put right."""
    keys: int = 1400
    """Sequences that the covariance of keys is made of."""
    facts: int = 160
    """Most facts of each order and kind that are asked after an edit."""
    sequences: int = 1000
    """Sequences that dictionary and scores are fitted on."""
    sae_steps: int = 800
    """Training steps of a dictionary, of 512 tokens."""
    latents: int = 192
    """Latents of it."""
    prompts: int = 10
    """Prompts of each label that the meter reads under an edit."""
    model: str = "smollm2-135m-instruct"
    """The real model: asset name, local folder or hub id."""
    real_edits: int = 2
    """Edits of it."""
    real_draws: int = 1
    """Drawn updates beside each."""


@final
class KnowledgeEditing(AbstractLab):
    """One edit, and the representations of everything else."""

    name: ClassVar[str] = "knowledge-editing"
    title: ClassVar[str] = "One edited fact: does it shatter what a model knows?"
    question: ClassVar[str] = (
        "Does one edit distort the representations of all entities, more when the new answer lies farther from the old? Is that geometry or "
        "only the norm of the update? And can distances on a ring and a shift score replace a benchmark?"
    )
    source: ClassVar[Source] = Source(
        "Representation Shattering in Transformers: A Synthetic Study with Knowledge Editing",
        "Kento Nishi, Rahul Ramesh, Maya Okawa, Mikail Khona, Hidenori Tanaka, Ekdeep Singh Lubana",
        "arXiv 2410.17194, ICML 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": EditingConfig(),
        "paper": EditingConfig(
            arms=("editing_published", "editing_long", "editing", "real", "real_scaled", "algebra"),
            first=10,
            real_edits=50,
            real_draws=5,
        ),
        "tiny": EditingConfig(
            seeds={"editing": 1, "algebra": 1},
            judged="controls",
            arms=("editing", "algebra"),
            steps=120,
            each=3,
            first=1,
            corrections=2,
            keys=300,
            facts=30,
            sequences=300,
            sae_steps=60,
            latents=96,
            prompts=4,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Models first: they take longest."""
        own = own_config(config, EditingConfig, self.name)
        return jobs_of(own.arms, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed; all editors of a seed share its model."""
        own = own_config(config, EditingConfig, self.name)
        if job.arm == "algebra":
            return run_algebra(job.seed)
        if job.arm == "real":
            return run_real(RealSizes(own.model, own.real_edits, own.real_draws), job.seed, folder)
        if job.arm == "real_scaled":
            return run_scaled(own.model, job.seed, folder)
        at = MeterSizes(own.sequences, own.sae_steps, own.latents, own.prompts)
        sizes = EditingSizes(own.steps, own.each, own.first, own.corrections, own.keys, ReaderSizes(own.facts), at)
        return run_editing(ARMS[job.arm], job.seed, sizes)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:
        """Distance, cost, score; and keys, which need no model."""
        arms = [arm for arm in own_config(config, EditingConfig, self.name).arms if arm in ARMS]
        own = arms[-1] if arms else "editing"
        return [distances(found, own), lost(found, own), meter(found, own), mixed(found)]
