"""`perimetry edit-check`: which edits, by which editor, and what the model is looked at by."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field, PositiveInt, field_validator

from perimetry.config import Config, build, over
from perimetry.editing.editors import EditorConfig
from perimetry.editing.health import HealthLimits
from perimetry.editing.known import RINGS
from perimetry.editing.moments import MomentsConfig
from perimetry.editing.probes import Fact, Ring
from perimetry.editing.requests import EditRequest
from perimetry.errors import MissingFile, UnknownName, UsageError

__all__ = ["EDIT_CHECK_PRESETS", "EditCheckConfig", "read_facts", "read_rings", "with_edit_check_preset"]

C = TypeVar("C", bound=Config)


class EditCheckConfig(Config):
    """What is edited and what is looked at."""

    text: str = "wikipedia"
    """Ordinary text: asset name, .jsonl, .txt or folder; split by document into text for moments and text to look at."""
    edits: PositiveInt = 2
    """How many of the edits that come with the check: a month, a capital, a weekday, and again."""
    request: EditRequest | None = None
    """A fact of one's own in their place."""
    draws: PositiveInt = 1
    """Drawn updates of the same norm beside each edit."""
    editor: EditorConfig = EditorConfig()
    """How a fact is written."""
    moments: MomentsConfig = MomentsConfig()
    """How much ordinary text the editor is to leave alone."""
    prefixes: PositiveInt = 6
    """Beginnings that are put before a prompt, the empty one included."""
    rings: tuple[Ring, ...] = Field(default=RINGS, min_length=1)
    """Words whose places are looked at."""
    facts: tuple[Fact, ...] = ()
    """Facts beside the edited one; none: twelve capitals."""
    nll_tokens: PositiveInt = 2048
    """Tokens of ordinary text whose likelihood is looked at."""
    passages: PositiveInt = 40
    """Passages that the meter reads, where one is given."""
    limits: HealthLimits = HealthLimits()
    """From where a ring is flagged."""
    seed: int = 0
    """Of the order of documents and of drawn updates."""

    @field_validator("rings")
    @classmethod
    def _named_apart(cls, value: tuple[Ring, ...]) -> tuple[Ring, ...]:
        if len({ring.name for ring in value}) < len(value):
            raise ValueError("two rings have one name; name them apart")
        return value


EDIT_CHECK_PRESETS: Final[dict[str, dict[str, Any]]] = {
    "quick": {},
    "full": {"edits": 50, "draws": 5},
    "tiny": {
        "moments": {"tokens": 600, "context": 48, "batch_rows": 4},
        "editor": {"value": {"steps": 3}},
        "nll_tokens": 192,
        "passages": 6,
        "prefixes": 3,
    },
}
"""`quick` is a month and a capital, each beside one drawn update; `full` 50 edits beside five each; `tiny` is for tests."""


def with_edit_check_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset. Errors: `UnknownName`."""
    if preset not in EDIT_CHECK_PRESETS:
        raise UnknownName("preset", preset, EDIT_CHECK_PRESETS)
    return over(EDIT_CHECK_PRESETS[preset], values)


def read_rings(path: Path) -> tuple[Ring, ...]:
    """Rings of a file: a .txt is one ring, a word a line, called as the file; a .jsonl has name, words and sentences on each line.

    Errors: `MissingFile`, `UsageError` for a line that is none, `ConfigError` for words or sentences that cannot be used.
    """
    if path.suffix == ".txt":
        words = [line.strip() for line in _text(path).splitlines() if line.strip()]
        return (build(Ring, {"name": path.stem, "words": words}, f"the ring of {path}"),)
    return tuple(_lines(path, Ring, "name, words and, if wanted, sentences"))


def read_facts(path: Path) -> tuple[Fact, ...]:
    """Facts of a .jsonl with prompt, answer and, if wanted, subject on each line. Errors: as `read_rings`."""
    return tuple(_lines(path, Fact, "prompt, answer and, if wanted, subject"))


def _text(path: Path) -> str:
    if not path.is_file():
        raise MissingFile(f"no file {path}; check the path")
    return path.read_text(encoding="utf-8")


def _lines(path: Path, kind: type[C], keys: str) -> list[C]:
    found: list[C] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}; wanted one JSON object with {keys}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path}, line {number}: wanted one JSON object with {keys}; mend the line")
        found.append(build(kind, values, f"{path}, line {number}"))
    if not found:
        raise UsageError(f"{path} is empty; wanted JSON objects with {keys}, one a line")
    return found
