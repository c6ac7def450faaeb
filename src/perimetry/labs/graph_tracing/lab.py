"""The lab: walks, walkers and words; what must come out."""

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
from perimetry.labs.graph_tracing.attachment import AttachConfig
from perimetry.labs.graph_tracing.expected import ASKED, EXPECTED
from perimetry.labs.graph_tracing.panels import drift, followed_real, followed_scratch
from perimetry.labs.graph_tracing.running import run_baselines, run_scratch
from perimetry.labs.graph_tracing.scratch import ScratchArm
from perimetry.labs.graph_tracing.words import RealConfig, run_real

__all__ = ["GraphConfig", "GraphTracing"]

SLOW: Final = {"lr": 2e-3, "warmup": 0, "deviation": 0.02}
WALKERS: Final = {
    "scratch": ScratchArm(),
    # The recipe of the rebuild; its longer run; and its trap: walks that may go back.
    "scratch_slow": ScratchArm.model_validate({"steps": 4000, **SLOW}),
    "scratch_long": ScratchArm.model_validate({"steps": 20_000, **SLOW}),
    "scratch_uniform": ScratchArm.model_validate(
        {"steps": 4000, "length": 192, "backtracking": True, **SLOW, "lr": 1e-3}
    ),
}


class GraphConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"baselines": 3, "scratch": 3, "real": 3}, min_length=1)
    """Seeds of each kind of arm."""
    arms: tuple[str, ...] = ("baselines", "scratch", "real")
    """Which arms are run."""
    shorten: float = 1.0
    """Share of its steps that a walker is trained for."""
    tests: int = 64
    """Test walks."""
    latents: int = 256
    """Latents of the meter's dictionary."""
    sae_steps: int = 1200
    """Its training steps, of 512 tokens."""
    model: str = "smollm2-135m-instruct"
    """The real model: asset name, local folder or hub id."""
    real_walks: int = 3
    """Walks over words under each seed."""
    real_steps: int = 400
    """Their steps."""
    real_pairs: int = 200
    """Pairs of neighbours in each of as many lists."""
    real_meter: bool = True
    """Whether the meter reads the real model too."""


@final
class GraphTracing(AbstractLab):
    """A graph that is given only in context, and whether states take its shape."""

    name: ClassVar[str] = "graph-tracing"
    title: ClassVar[str] = "A graph given only in context: predictions, states and scores"
    question: ClassVar[str] = (
        "A model reads a walk on a hidden graph. Do its predictions come to obey the graph, do its states take the graph's shape, and does "
        "a shift score rise while that happens?"
    )
    source: ClassVar[Source] = Source(
        "ICLR: In-Context Learning of Representations",
        "Core Francisco Park, Andrew Lee, Ekdeep Singh Lubana, Yongyi Yang, Maya Okawa, Kento Nishi, Martin Wattenberg, Hidenori Tanaka",
        "arXiv 2501.00070, ICLR 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": GraphConfig(),
        "paper": GraphConfig(
            arms=("baselines", *WALKERS, "real"),
            real_walks=16,
            real_steps=1200,
            real_pairs=400,
            model="meta-llama/Llama-3.2-1B",
        ),
        "tiny": GraphConfig(
            seeds={"baselines": 1, "scratch": 1, "real": 1},
            judged="controls",
            arms=("baselines", "scratch"),
            shorten=0.01,
            tests=24,
            latents=64,
            sae_steps=40,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Baselines, walkers, words."""
        own = own_config(config, GraphConfig, self.name)
        return jobs_of(own.arms, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed."""
        own = own_config(config, GraphConfig, self.name)
        if job.arm == "baselines":
            return run_baselines(job.seed, 100 * own.tests)
        if job.arm == "real":
            real = RealConfig(own.model, own.real_walks, own.real_steps, own.real_pairs, own.real_meter)
            return run_real(real, job.seed)
        arm = WALKERS[job.arm]
        at = AttachConfig(own.tests, own.latents, own.sae_steps, 32)
        return run_scratch(arm, job.seed, max(2, round(own.shorten * arm.steps)), own.tests, at)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """The walker, the words, the score."""
        return [followed_scratch(found), followed_real(found), drift(found)]
