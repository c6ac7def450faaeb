"""How much the controls of a meter measure, and two sizes of it."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from perimetry.config import Config, build
from perimetry.errors import UnknownName
from perimetry.pipeline.bench_config import BenchConfig

__all__ = ["CONTROL_PRESETS", "ControlsConfig", "with_control_preset"]


class ControlsConfig(Config):
    """What is measured, on how much text."""

    text: str = "wikipedia"
    """Held-out clean text: asset name, .jsonl, .txt or folder; of an asset only the test split is used."""
    fit_text: str = ""
    """Clean text that the meters of the controls are fitted on, without held-out documents; empty is the meter's own."""
    passages: int = Field(default=100, ge=8)
    """Clean passages that get twins with typing errors; and of each half of clean against clean."""
    words: int = Field(default=60, ge=5)
    """Words of a passage."""
    doses: tuple[float, ...] = Field(default=(0.05, 0.2), min_length=1)
    """Shares of the words with typing errors; doses of the suite `typos`."""
    scores: tuple[str, ...] = ("l0", "surprise", "bernoulli", "energy", "fallacious_f2", "transition")
    """Concept scores, beside the main score of the meter, that must owe something to what was learned."""
    clean_prompts: int = Field(default=400, ge=20)
    """Clean prompts whose p-values are looked at, of mixed lengths, one a document at most."""
    shuffles: int = Field(default=1000, ge=100)
    """How often the labels of the pairs are shuffled."""
    simulated: int = Field(default=100_000, ge=1000)
    """Simulated exchangeable scores."""
    profile_tokens: int | None = Field(default=None, ge=1_000)
    """Tokens of the profile of the meters of the controls; None takes the meter's own settings, here and below."""
    foresight_tokens: int | None = Field(default=None, ge=500)
    """Of these, the tokens that the whole model reads."""
    reference_tokens: int | None = Field(default=None, ge=500)
    """Tokens for the moments of their scores."""
    calibration_prompts: int | None = Field(default=None, ge=20)
    """Their calibration prompts; no p-value of theirs is reported."""
    acts: int = Field(default=4096, ge=64)
    """Clean tokens on which the untrained SAE is made to fire as often as the trained one."""
    seed: int = 1
    """Seed of the texts, of the untrained SAE and of the untrained model."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Padded tokens of one forward pass."""

    def bench(self) -> BenchConfig:
        """The benchmark that builds the twins."""
        shared = ("text", "passages", "words", "doses", "seed", "resamples", "batch_tokens")
        values = {name: getattr(self, name) for name in shared}
        return build(BenchConfig, values | {"suites": ("typos",)}, "configuration [controls]")


CONTROL_PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "passages": 32,
        "scores": ("l0", "surprise", "energy", "fallacious_f2"),
        "clean_prompts": 150,
        "shuffles": 400,
        "profile_tokens": 6_000,
        "foresight_tokens": 500,
        "reference_tokens": 500,
        "calibration_prompts": 20,
        "resamples": 400,
    },
    "full": {},
}
"""Sizes by name: `quick` looks whether anything is wrong and has wide intervals; `full` is for numbers that are reported."""


def with_control_preset(values: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset; without one, of `full`. Errors: `UnknownName`.

    >>> with_control_preset({"passages": 9}, "full")
    {'passages': 9}
    """
    name = preset or "full"
    if name not in CONTROL_PRESETS:
        raise UnknownName("preset", name, CONTROL_PRESETS)
    return {**CONTROL_PRESETS[name], **values}
