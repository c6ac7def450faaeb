"""What an evaluation of a dictionary promises: which numbers, in which direction, on which units, and when it refuses."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.config import Config
from perimetry.errors import Incompatible
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units
from perimetry.sae.base import AbstractSAE

__all__ = ["AbstractEvaluation", "Metric", "Place", "Subject", "require_rows_alone"]

E = TypeVar("E", bound="AbstractEvaluation")


class Metric(NamedTuple):
    """What a number means."""

    unit: str
    """`share`, `nats`, `AUC`, `concepts`, `cosine` ..."""
    higher: bool | None
    """Whether higher is better; None where neither is."""
    text: str
    """Its definition in a sentence."""


class Place(NamedTuple):
    """Where in which model a dictionary reads."""

    lm: LanguageModel
    """The model."""
    layer: int
    """Block whose output is read, from 0."""
    policy: TokenPolicy
    """Which tokens count, with its sink threshold fitted."""

    def key(self) -> dict[str, Any]:
        """What activations depend on here, as plain JSON values."""
        return {
            "model": self.lm.revision,
            "tokenizer": self.lm.tokenizer_hash,
            "layer": self.layer,
            "policy": self.policy.model_dump(mode="json"),
            "dtype": str(self.lm.dtype),
        }


class Subject(NamedTuple):
    """One dictionary that is evaluated."""

    name: str
    """How it is called in results."""
    sae: AbstractSAE
    """Reads raw activations at the place."""
    place: Place
    """Where it was trained."""
    seed: int = 0
    """Of its training."""


def require_rows_alone(sae: AbstractSAE) -> None:
    """Refuse a dictionary whose codes of a row depend on other rows: numbers would follow the batches. Errors: `Incompatible`."""
    if sae.in_order:
        raise Incompatible(
            f"a {sae.architecture} dictionary reads consecutive tokens, this evaluation gives it rows in batches of any order; leave it out"
        )


class AbstractEvaluation(Config, ABC):
    """An evaluation with its settings; `measure` gives numbers unit by unit, the same on every machine and in any batch size."""

    name: ClassVar[str]
    """Name in `SAE_EVALS`."""
    definition: ClassVar[str]
    """Version of the definition; numbers of two versions are not compared."""
    metrics: ClassVar[dict[str, Metric]]
    """What is measured, by name."""
    source: ClassVar[str]
    """Where the definition comes from."""
    caveat: ClassVar[str] = ""
    """What must stand beside the numbers."""
    reliable: ClassVar[bool] = True
    """False where the field has found that the numbers should not be relied on: never a headline."""

    @classmethod
    @abstractmethod
    def tiny(cls: type[E]) -> E:
        """Settings for a tiny model."""

    def files(self) -> list[Path]:
        """Files that are read without being named in the settings."""
        return []

    @abstractmethod
    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """The numbers of one dictionary, unit by unit; activations come from `shelf`, which all dictionaries share.

        Errors: a `PerimetryError` that says why where the evaluation cannot judge this dictionary on this data.
        """
