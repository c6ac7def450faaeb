"""One evaluation of one dictionary: kept on disk as soon as it is measured, a refusal as well as numbers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry import __version__
from perimetry.errors import (
    Incompatible,
    MalformedLine,
    MissingFile,
    NonFinite,
    PerimetryError,
    UnknownName,
    UsageError,
)
from perimetry.evals.sae import AbstractEvaluation, Subject
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.stability import Stability
from perimetry.evals.sae.units import Units
from perimetry.pipeline.bench_parts import kept
from perimetry.storage import hash_file, hash_json

__all__ = ["Keeper", "Measured", "is_refusal"]

LAYOUT = 1


def is_refusal(error: PerimetryError) -> bool:
    """Whether an error says that this dictionary or these data cannot be judged; else the run itself went wrong."""
    judged = isinstance(error, (UsageError, Incompatible, NonFinite))
    return judged and not isinstance(error, (MissingFile, MalformedLine, UnknownName))


class Measured(NamedTuple):
    """What an evaluation said of a dictionary."""

    units: list[Units]
    """Its numbers, unit by unit; none where it refused."""
    refused: str
    """Why it could not judge; empty where it did."""


class Keeper(NamedTuple):
    """Where measurements are kept, and what they share."""

    folder: Path
    """Of the parts."""
    shelf: Shelf
    """Activations, shared by all."""
    progress: bool
    """Whether bars are shown."""
    say: Callable[[str], None]
    """Takes a line on what is done."""

    def measure(self, evaluation: AbstractEvaluation, subject: Subject, identity: str, what: str) -> Measured:
        """The numbers of one dictionary, from disk where they were made from the same things. `identity`: of the dictionary.

        What an evaluation cannot judge is kept, too. Errors: those that say nothing of the dictionary, such as a missing file.
        """
        place = subject.place
        return self._kept(
            evaluation,
            [identity, place.key()],
            what,
            lambda: evaluation.measure(subject, self.shelf, progress=self.progress),
        )

    def compare(
        self, stability: Stability, first: Subject, second: Subject, identities: tuple[str, str], what: str
    ) -> Measured:
        """Which latents two dictionaries share, likewise."""
        return self._kept(
            stability,
            [*identities, first.place.key(), second.place.key()],
            what,
            lambda: stability.compare(first, second, self.shelf, progress=self.progress),
        )

    def _kept(
        self, evaluation: AbstractEvaluation, of: Sequence[Any], what: str, make: Callable[[], list[Units]]
    ) -> Measured:
        origin = {
            "layout": LAYOUT,
            "version": __version__,
            "torch": torch.__version__,
            "evaluation": evaluation.name,
            "definition": evaluation.definition,
            "settings": evaluation.model_dump(mode="json"),
            "files": {
                name: _content(Path(name))
                for name in (*_strings(evaluation.model_dump(mode="json")), *map(str, evaluation.files()))
                if Path(name).exists()
            },
            "of": list(of),
        }

        def made() -> dict[str, Any]:
            self.say(f"     {what}")
            try:
                return {"units": [units.to_json() for units in make()], "refused": ""}
            except PerimetryError as error:
                if not is_refusal(error):
                    raise
                return {"units": [], "refused": f"{type(error).__name__}: {error}"}

        file = self.folder / f"{_safe(what)}.json"
        found = kept(file, origin, evaluation, made, what=f"     {what}", say=self.say)
        return Measured([Units.of_json(plain) for plain in found["units"]], found["refused"])


def _safe(what: str) -> str:
    """A name for a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in what)


def _strings(plain: Any) -> list[str]:
    """Every text in plain values, each once."""
    if isinstance(plain, str):
        return [plain] if plain else []
    parts = plain.values() if isinstance(plain, Mapping) else plain if isinstance(plain, (list, tuple)) else ()
    return list(dict.fromkeys(text for part in parts for text in _strings(part)))


def _content(path: Path) -> str:
    """Identity of what a user's file holds; of a folder, that of its files."""
    if path.is_file():
        return hash_file(path)
    return hash_json(
        [[str(file.relative_to(path)), hash_file(file)] for file in sorted(path.rglob("*")) if file.is_file()]
    )
