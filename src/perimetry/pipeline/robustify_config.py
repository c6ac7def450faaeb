"""`perimetry robustify`: what is tuned on, what it is measured on, and some sizes of both."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from perimetry.config import Config, over
from perimetry.errors import UnknownName
from perimetry.perturb import PERTURBATIONS
from perimetry.robust.recipe import TuneConfig
from perimetry.robust.selection import SELECTIONS

__all__ = ["ROBUSTIFY_PRESETS", "Dose", "RobustifyConfig", "with_robustify_preset"]


class Dose(Config):
    """A perturbation at a dose."""

    kind: str
    """Name in `PERTURBATIONS`."""
    dose: float = Field(gt=0, le=1)
    """Share of the eligible units that is changed."""

    @model_validator(mode="after")
    def _known(self) -> "Dose":
        if self.kind not in PERTURBATIONS:
            raise ValueError(str(UnknownName("perturbation", self.kind, PERTURBATIONS)))
        return self

    @property
    def case(self) -> str:
        """Name in results.

        >>> Dose(kind="typos", dose=0.1).case
        'typos 10 %'
        """
        return f"{self.kind} {100 * self.dose:g} %"


class RobustifyConfig(Config):
    """What a model is tuned on and measured on."""

    text: str = "wikipedia"
    """Clean text: asset name, .jsonl, .txt or folder; split by document into text to tune on, to watch with and to measure on."""
    passages: int = Field(default=3200, ge=2)
    """Passages that can be tuned on."""
    words: int = Field(default=60, ge=5)
    """Words of a passage."""
    kinds: tuple[str, ...] = Field(default=("typos",), min_length=1)
    """Perturbations that are tuned on, by name; each passage gets one."""
    doses: tuple[float, ...] = Field(default=(0.05, 0.1, 0.15, 0.2), min_length=1)
    """Their doses, drawn with each passage; 0 leaves a passage clean."""
    selection: Literal["", "entropy", "lowest", "mahalanobis", "random", "shift"] = ""
    """Which of the corrupted passages are tuned on; empty: all."""
    budget: int = Field(default=0, ge=0)
    """Tokens of the corrupted passages that a selection takes."""
    guard: int = Field(default=32, ge=1)
    """Passages that the run is watched with."""
    test: int = Field(default=100, ge=2)
    """Held-out passages that the result is measured on."""
    measured: tuple[Dose, ...] = Field(
        default=(
            Dose(kind="typos", dose=0.1),
            Dose(kind="typos", dose=0.3),
            Dose(kind="ocr", dose=0.1),
            Dose(kind="case", dose=0.1),
        ),
        min_length=1,
    )
    """What is measured; the first stands in front, and kinds and doses that are not tuned on are called unseen."""
    shift_tokens: int = Field(default=20_000, ge=64)
    """Clean tokens that say what is normal, for the shift term."""
    tune: TuneConfig = TuneConfig()
    """Terms, parameters and length."""
    seed: int = 0
    """Seed of passages and corruptions; that of the tuning is `tune.seed`."""

    @model_validator(mode="after")
    def _fits(self) -> "RobustifyConfig":
        unknown = [kind for kind in self.kinds if kind not in PERTURBATIONS]
        if unknown:
            raise ValueError(f"kinds: {UnknownName('perturbation', unknown[0], PERTURBATIONS)}")
        if any(not 0 <= dose <= 1 for dose in self.doses):
            raise ValueError(f"doses = {list(self.doses)}: shares from 0 to 1 are wanted")
        if bool(self.selection) != bool(self.budget):
            raise ValueError("selection and budget belong together: give both, or neither")
        if self.selection and self.selection not in SELECTIONS:
            raise ValueError(str(UnknownName("selection", self.selection, SELECTIONS)))
        if len({one.case for one in self.measured}) < len(self.measured):
            raise ValueError("measured names a perturbation at a dose twice; name each once")
        return self

    def seen(self, one: Dose) -> bool:
        """Whether a perturbation at a dose is tuned on."""
        return one.kind in self.kinds and min(self.doses) <= one.dose <= max(self.doses)


ROBUSTIFY_PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"passages": 480, "test": 32, "guard": 16, "tune": {"updates": 30}},
    "tiny": {
        "passages": 12,
        "words": 8,
        "guard": 4,
        "test": 6,
        "shift_tokens": 64,
        "measured": [{"kind": "typos", "dose": 0.4}, {"kind": "ocr", "dose": 0.4}],
        "tune": {
            "updates": 4,
            "batch": 4,
            "check_every": 2,
            "rank": 2,
            "lr": 0.003,
            "clean_limit": 1.0,
            "retain_limit": 1.0,
        },
    },
}
"""Sizes by name: `full` is for numbers that are reported, `quick` looks whether anything is wrong, `tiny` is for tests."""


def with_robustify_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset, table by table. Errors: `UnknownName`."""
    if preset not in ROBUSTIFY_PRESETS:
        raise UnknownName("preset", preset, ROBUSTIFY_PRESETS)
    return over(ROBUSTIFY_PRESETS[preset], values)
