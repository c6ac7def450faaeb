"""What a study compares, on which texts, and the rule by which it chooses: all of it said before anything is measured."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from perimetry.activations.masking import Masking, require_plain
from perimetry.config import Config
from perimetry.errors import UnknownName
from perimetry.pipeline.bench_suites import PROMPT_SUITES, TEST_SPLIT
from perimetry.sae import ARCHITECTURES
from perimetry.shift.clean import MeterConfig
from perimetry.suites import SUITES
from perimetry.train import TrainConfig

__all__ = [
    "CLEAN_SUITES",
    "FIT_SPLIT",
    "MASKED",
    "PRESETS",
    "TEST_SPLIT",
    "TRAIN_SPLIT",
    "VALIDATION_SPLIT",
    "StudyConfig",
    "with_preset",
]

TRAIN_SPLIT = (0.0, 0.8)
"""Share of documents, by the hash of their id, that the SAEs are trained on."""
FIT_SPLIT = (0.8, 0.9)
"""That on which the meters are fitted."""
VALIDATION_SPLIT = (0.9, 0.95)
"""That of which the suites are made on which the choice is made; the rest, `TEST_SPLIT`, confirms it."""
CLEAN_SUITES = frozenset(SUITES) - PROMPT_SUITES
"""Suites made of clean documents alone: only these can be made twice without a text in common."""
MASKED = "masked-"
"""In front of an architecture: trained on masked text."""
OWN = ("architecture", "seed", "width")


class StudyConfig(Config):
    """Layers, architectures, widths and seeds that are compared, and how."""

    model: str = "smollm2-135m-instruct"
    """Asset name, local folder or hub id."""
    text: str = "wikipedia"
    """Clean text: asset name, .jsonl or folder; split by document into training, fitting, validation and test."""
    layers: tuple[NonNegativeInt, ...] = Field(default=(6, 12, 18, 24), min_length=1)
    """Blocks whose output is read, from 0."""
    architectures: tuple[str, ...] = Field(
        default=("batchtopk", "jumprelu", "standard", "matryoshka", "masked-batchtopk"), min_length=1
    )
    """Names in `ARCHITECTURES` that read the output of one block and give it back; with `masked-` in front, those trained on
    text of which tokens are replaced by `masking`, such as `masked-batchtopk`."""
    widths: tuple[PositiveInt, ...] = Field(default=(2304,), min_length=1)
    """Latents of the SAEs."""
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)
    """Seeds of the SAEs; all of a layer are trained on the same batches."""
    context: int = Field(default=128, ge=8)
    """Tokens of one packed row of training text."""
    recipe: TrainConfig = TrainConfig(k=40, tokens=300_000, lr=1e-3)
    """How every SAE is trained; architecture, width and seed are not said here."""
    by_architecture: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Fields of the recipe that an architecture has of its own, by its name; masked, those of the plain one and then its own."""
    masking: Masking = Masking()
    """How the text of masked architectures is masked; meters are fitted and everything is measured on text as it is."""
    meter: MeterConfig = MeterConfig(
        profile_tokens=60_000, calibration_prompts=60, words_high=150, groups=1, minimum=19, bank=4096
    )
    """How the meters are fitted; its `main` is the score of the second heat map. AUROC asks for no large calibration."""
    suites: tuple[str, ...] = Field(default=("typos", "word_order"), min_length=1)
    """Suites made of clean documents, built once from the validation texts and once from the test texts."""
    doses: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    """Doses that are measured, where a suite has them; none means all that it has."""
    passages: int = Field(default=100, ge=8)
    """Clean passages of each validation suite."""
    test_passages: int = Field(default=200, ge=8)
    """Clean passages of each test suite."""
    words: int = Field(default=60, ge=5)
    """Words of a passage."""
    seed: int = 11
    """Seed of the validation suites."""
    test_seed: int = 12
    """Seed of the test suites."""
    rule: Literal["mean", "least"] = "mean"
    """How the suites count in the choice: the mean of their AUROCs (each the mean over its doses), or the least of them;
    then the mean over the seeds."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Padded tokens of one forward pass."""
    together: int = Field(default=8, ge=1)
    """Most SAEs of a layer that share a run of the model; fewer need less memory. Seeds of one SAE stay together."""
    keep_meters: bool = False
    """Keep the meters of all SAEs; else only those of the leading score and of the leading baseline stay on disk."""

    @model_validator(mode="after")
    def _fits_together(self) -> "StudyConfig":
        for name in ("layers", "architectures", "widths", "seeds", "suites", "doses"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} = {list(given)} names one twice; name each once")
        for name in (*self.architectures, *self.by_architecture):
            plain = name.removeprefix(MASKED)
            if plain not in ARCHITECTURES:
                raise UnknownName("architecture", plain, ARCHITECTURES)
            if ARCHITECTURES[plain].reads != "one":
                raise ValueError(
                    f"{name} reads several places or writes another; give one of one place, such as batchtopk"
                )
        for name in self.suites:
            if name not in SUITES:
                raise UnknownName("suite", name, CLEAN_SUITES)
            if name not in CLEAN_SUITES:
                raise ValueError(
                    f"suite {name} is made of prompts, which validation and test would share; give one made of clean text, "
                    f"such as {' or '.join(sorted(CLEAN_SUITES)[-2:])}"
                )
        require_plain(self.masking, "perimetry train")
        if self.seed == self.test_seed:
            raise ValueError(f"seed and test_seed are both {self.seed}; give two, so that no draw is made twice")
        self._recipes()
        return self

    def _recipes(self) -> None:
        """Every recipe is made once, so that a wrong one is refused before the first is trained."""
        plain = TrainConfig.model_fields
        said = [name for name in OWN if getattr(self.recipe, name) != plain[name].default]
        said += [name for own in self.by_architecture.values() for name in OWN if name in own]
        if said:
            raise ValueError(f"the recipe names {said[0]}; name it in {said[0]}s, which are compared")
        for architecture in self.architectures:
            for width in self.widths:
                self.recipe_of(architecture, width, self.seeds[0])

    def recipe_of(self, architecture: str, width: int, seed: int) -> TrainConfig:
        """How one SAE of the study is trained, on whichever text. Errors: those of `TrainConfig`."""
        plain = architecture.removeprefix(MASKED)
        own = self.by_architecture.get(plain, {}) | self.by_architecture.get(architecture, {})
        named = {"architecture": plain, "width": width, "seed": seed}
        return TrainConfig.model_validate(self.recipe.model_dump() | own | named)


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "layers": (6, 18),
        "architectures": ("batchtopk", "standard"),
        "seeds": (0,),
        "recipe": {"k": 40, "tokens": 100_000, "lr": 1e-3},
        "passages": 40,
        "test_passages": 60,
        "doses": (0.1, 0.5),
        "resamples": 300,
    },
    "tiny": {
        "layers": (0, 1),
        "architectures": ("batchtopk", "standard"),
        "widths": (64,),
        "context": 64,
        "recipe": {
            "k": 6,
            "tokens": 4096,
            "batch": 1024,
            "fit_tokens": 2048,
            "threshold_tokens": 1024,
            "lr": 1e-3,
            "checkpoint_every": 2,
        },
        "meter": {
            "profile_tokens": 2000,
            "foresight_tokens": 1000,
            "reference_tokens": 500,
            "calibration_prompts": 20,
            "words_low": 5,
            "words_high": 24,
            "groups": 1,
            "minimum": 19,
            "bank": 256,
        },
        "suites": ("typos",),
        "doses": (0.2, 0.5),
        "passages": 10,
        "test_passages": 12,
        "words": 20,
        "resamples": 100,
    },
}
"""`full` is the study; `quick` looks whether anything is wrong; `tiny` runs every step in seconds, for tests: its numbers
mean nothing."""


def with_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset. Errors: `UnknownName`."""
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)
    return {**PRESETS[preset], **values}
