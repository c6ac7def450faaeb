"""The lab: which models, what is measured of each, what must come out."""

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
from perimetry.labs.matrix_completion.attachment import AttachConfig
from perimetry.labs.matrix_completion.completer import CompletionArm
from perimetry.labs.matrix_completion.expected import ASKED, EXPECTED
from perimetry.labs.matrix_completion.panels import completed, counted, dropped, hidden
from perimetry.labs.matrix_completion.running import SumsSizes, run_baselines, run_completion, run_sums
from perimetry.labs.matrix_completion.sums import SumsArm

__all__ = ["CompletionConfig", "MatrixCompletion"]

SUMS: Final = {
    "sums": SumsArm(),
    "sums_random": SumsArm(answer="random"),
    "sums_uniform": SumsArm(uniform=True),
    "sums_published": SumsArm(width=256, batch=256, lr=1e-4, steps=800),
}
COMPLETERS: Final = {
    "completion": CompletionArm(),
    # Five by five with a token a value: where a rebuild has left the plateau once.
    "completion_tokens": CompletionArm(
        inputs="tokens", layers=4, width=256, heads=8, batch=256, lr=3e-4, steps=100_000
    ),
    "completion_published": CompletionArm(
        rows=7,
        columns=7,
        rank=2,
        inputs="tokens",
        layers=4,
        width=768,
        heads=8,
        batch=256,
        lr=1e-4,
        steps=50_000,
    ),
    "completion_no_rank": CompletionArm(law="full"),
}


class CompletionConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"baselines": 3, "sums": 3, "completion": 3}, min_length=1)
    """Seeds of each kind of arm."""
    arms: tuple[str, ...] = ("baselines", "sums", "sums_random", "sums_uniform", "completion")
    """Which arms are run."""
    shorten: float = 1.0
    """Share of its steps that a model is trained for."""
    matrices: int = 1000
    """Matrices of which the least nuclear norm is found."""
    every: int = 10
    """Steps between two looks at the sums."""
    looks: int = 30
    """Looks at a completer."""
    tests: int = 128
    """Test sequences of a look, and of each kind that the meter is asked about."""
    latents: int = 256
    """Latents of a dictionary."""
    sae_steps: int = 600
    """Its training steps, of 512 tokens."""
    device: str = "cpu"
    """Where completers are trained: `cpu`, `cuda` ..."""


@final
class MatrixCompletion(AbstractLab):
    """A plateau and a drop."""

    name: ClassVar[str] = "matrix-completion"
    title: ClassVar[str] = "A plateau, then a sudden drop"
    question: ClassVar[str] = (
        "On a plateau of the loss a model copies what it sees; then it suddenly computes. Do active concepts, attention or the collapse of "
        "states announce that, and does a score know which masked entries can be known at all?"
    )
    source: ClassVar[Source] = Source(
        "Abrupt Learning in Transformers: A Case Study on Matrix Completion",
        "Pulkit Gopalani, Ekdeep Singh Lubana, Wei Hu",
        "arXiv 2410.22244, NeurIPS 2024, and arXiv 2506.13688, NeurIPS 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": CompletionConfig(),
        "paper": CompletionConfig(arms=("baselines", *SUMS, *COMPLETERS), looks=200, device="cuda"),
        "tiny": CompletionConfig(
            seeds={"baselines": 1, "sums": 1, "completion": 1},
            judged="controls",
            shorten=0.05,
            matrices=60,
            every=5,
            looks=3,
            tests=24,
            latents=48,
            sae_steps=40,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """What takes longest first, so that no worker is left with it alone."""
        own = own_config(config, CompletionConfig, self.name)
        order = sorted(own.arms, key=lambda arm: ("completion", "sums", "baselines").index(arm.partition("_")[0]))
        return jobs_of(order, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One arm under one seed."""
        own = own_config(config, CompletionConfig, self.name)
        if job.arm == "baselines":
            return run_baselines(job.seed, own.matrices)
        at = AttachConfig(own.tests, own.latents, 8, own.sae_steps)
        if job.arm in SUMS:
            arm = SUMS[job.arm]
            asked = at if arm.answer == "sum" and not arm.uniform else None
            return run_sums(
                arm, job.seed, max(2, round(own.shorten * arm.steps)), SumsSizes(own.every, own.tests, asked)
            )
        completer = COMPLETERS[job.arm].model_copy(update={"device": own.device})
        return run_completion(completer, job.seed, max(2, round(own.shorten * completer.steps)), own.looks, at)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """The drop, what is hidden, the count, the matrices."""
        return [dropped(found), hidden(found), counted(found), completed(found)]
