"""The lab: three languages, dictionaries of several losses, the causal loss; what must come out."""

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
from perimetry.labs.formal_languages.attachment import AttachConfig
from perimetry.labs.formal_languages.dictionaries import COUNTS, SAESizes
from perimetry.labs.formal_languages.expected import ASKED, EXPECTED
from perimetry.labs.formal_languages.fitting import CausalSizes
from perimetry.labs.formal_languages.grammars import LANGUAGES
from perimetry.labs.formal_languages.models import LanguageArm
from perimetry.labs.formal_languages.panels import deep, exchanged, shallow, straight
from perimetry.labs.formal_languages.running import BRACKETS, Sizes, SlowSizes, run_causal, run_language

__all__ = ["FormalConfig", "FormalLanguages"]

LONG = "dyck_long"
"""The arm of the causal loss alone, trained for long."""
FULL = 160_000
"""Updates of that arm."""


class FormalConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"dyck": 3, "expr": 3, "english": 3}, min_length=1)
    """Seeds of each language."""
    arms: tuple[str, ...] = ("dyck", "english", "expr")
    """Languages, or `dyck_long`: brackets with the causal loss alone, at its published length."""
    steps: dict[str, int] = Field(default={"dyck": 3000, "expr": 600, "english": 2000}, min_length=1)
    """Training steps of a model, by language as far as the first `_`."""
    width: int = 64
    """Width of its residual stream."""
    longest: int = 38
    """Longest string; longer ones are drawn again."""
    drawn: int = 20_000
    """Strings that it is trained on."""
    strings: int = 3000
    """Strings that dictionaries are trained on."""
    tests: int = 500
    """Test strings."""
    samples: int = 256
    """Strings that are written with each dictionary."""
    latents: int = 128
    """Latents of a dictionary."""
    sae_steps: int = 800
    """Its training steps, of 512 tokens."""
    counts: tuple[int, ...] = COUNTS
    """Active latents of the TopK dictionaries of brackets."""
    counts_elsewhere: tuple[int, ...] = (1, 8)
    """The same of the other languages."""
    released: tuple[int, int] = (300, 1024)
    """Steps of the dictionary with the released L1 loss, and tokens of a step."""
    expansions: tuple[int, ...] = (1,)
    """Latents of the dictionaries at the published learning rate, in widths of the stream."""
    slow_counts: tuple[int, ...] = (4, 16)
    """Their active latents."""
    slow_steps: int = 5000
    """Their training steps, of 128 tokens."""
    causal: int = 1500
    """Training steps with the causal loss, of one string each."""
    held: int = 8
    """Most latents that are held while strings are written."""
    meter: tuple[int, int, int, int] = (1500, 300, 256, 1000)
    """Strings that the meter is fitted on, its test strings of each kind, latents, training steps of 512 tokens."""

    parts: int = 600
    """Training steps of the dictionaries of parts of speech, of 512 tokens."""

    def arm(self, name: str) -> LanguageArm:
        """The model of an arm."""
        language = name if name in LANGUAGES else BRACKETS
        return LanguageArm(
            language=language,
            steps=self.steps[name.partition("_")[0]],
            longest=self.longest,
            strings=self.drawn,
            width=self.width,
        )

    def sizes(self, name: str) -> Sizes:
        """What is measured of an arm."""
        return Sizes(
            self.strings,
            self.tests,
            self.samples,
            SAESizes(self.latents, self.sae_steps, 512),
            self.counts if name.startswith(BRACKETS) else self.counts_elsewhere,
            self.released,
            SlowSizes(self.expansions, self.slow_counts, self.slow_steps),
            CausalSizes(self.causal if name != LONG else FULL),
            self.held,
            AttachConfig(*self.meter),
            self.parts,
        )


@final
class FormalLanguages(AbstractLab):
    """Languages whose grammar is known."""

    name: ClassVar[str] = "formal-languages"
    title: ClassVar[str] = "A grammar that is known: does a dictionary keep what a model can do?"
    question: ClassVar[str] = (
        "In a language whose grammar is known, when does a dictionary keep a transformer's behaviour, do its latents match known variables, and do "
        "latents that correlate with a variable also cause it?"
    )
    source: ClassVar[Source] = Source(
        "Analyzing (In)Abilities of SAEs via Formal Languages",
        "A. Menon, M. Shrivastava, D. Krueger, E. S. Lubana",
        "arXiv 2410.11767, NAACL 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": FormalConfig(),
        "paper": FormalConfig(
            seeds={"dyck": 5, "expr": 5, "english": 5},
            arms=(LONG, "dyck", "dyck_3", "english", "expr"),
            steps={"dyck": 70_000, "expr": 70_000, "english": 70_000},
            width=128,
            longest=118,
            drawn=400_000,
            strings=20_000,
            tests=2000,
            samples=640,
            latents=256,
            sae_steps=6000,
            counts_elsewhere=COUNTS,
            released=(5000, 1024),
            expansions=(1, 2, 4, 8),
            slow_counts=(4, 8, 16, 32, 64, 128),
            held=32,
            parts=8000,
        ),
        "tiny": FormalConfig(
            seeds={"dyck": 1, "english": 1},
            judged="controls",
            arms=("dyck", "english"),
            steps={"dyck": 60, "english": 60},
            width=32,
            longest=26,
            drawn=800,
            strings=300,
            tests=60,
            samples=128,
            latents=48,
            sae_steps=40,
            counts=(1, 8),
            released=(40, 256),
            slow_steps=40,
            causal=20,
            held=1,
            meter=(200, 400, 48, 60),
            parts=20,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """Brackets first: they take longest."""
        own = own_config(config, FormalConfig, self.name)
        return jobs_of(own.arms, own.seeds)

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """One language under one seed."""
        own = own_config(config, FormalConfig, self.name)
        run = run_causal if job.arm == LONG else run_language
        return run(own.arm(job.arm), job.seed, own.sizes(job.arm))

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """Deep and other validity, interpolation, exchanged tokens."""
        return [deep(found), shallow(found), straight(found), exchanged(found)]
