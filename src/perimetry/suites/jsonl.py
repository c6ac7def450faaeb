"""A user's own suite: a JSONL file, one case a line."""

import json
from pathlib import Path
from typing import Any

from perimetry.errors import MalformedLine, MissingFile
from perimetry.storage import write_bytes
from perimetry.suites.base import Case, Suite, check_suite

__all__ = ["read_suite", "write_suite"]

FIELDS = ("dose", "family", "id", "pair", "shifted", "text")


def read_suite(path: Path, *, name: str = "") -> Suite:
    """The suite in a JSONL file: `{"id", "text", "shifted", "pair", "family", "dose"}` a line, empty lines skipped.

    `id`, `text` and `shifted` are wanted; `pair` is the id where absent, `family` is `shifted` or `clean`, `dose` is 1
    or 0. Errors: `MissingFile`, `MalformedLine` (with the line number), `TooFewSamples` when one kind is absent.
    """
    if not path.is_file():
        raise MissingFile(f"no suite {path}; give a JSONL file of cases")
    cases: list[Case] = []
    seen: set[str] = set()
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                case = _case(line, str(path), number)
                if case.id in seen:
                    raise MalformedLine(str(path), number, f"the id {case.id!r} was used before")
                seen.add(case.id)
                cases.append(case)
    description = f"{len(cases)} cases of the file {path.name}."
    return check_suite(Suite(name or path.stem, description, tuple(cases), {"negatives": "as given in the file"}))


def write_suite(path: Path, suite: Suite) -> None:
    """Write the cases of a suite as `read_suite` reads them. Errors: `StorageFull`, `StorageError`."""
    lines = [json.dumps(case._asdict(), ensure_ascii=False, sort_keys=True, allow_nan=False) for case in suite.cases]
    write_bytes(path, "".join(line + "\n" for line in lines).encode())


def _case(line: bytes, path: str, number: int) -> Case:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedLine(path, number, f"not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise MalformedLine(path, number, f"a {type(entry).__name__} came, not an object")
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise MalformedLine(path, number, f"unknown field {unknown[0]!r}, known are {', '.join(FIELDS)}")
    for field, kind in (("id", str), ("text", str), ("shifted", bool)):
        if not isinstance(entry.get(field), kind):
            raise MalformedLine(path, number, f"{field!r} is {entry.get(field)!r}, not a {kind.__name__}")
    if not entry["text"].strip():
        raise MalformedLine(path, number, "'text' is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in entry["text"]):
        raise MalformedLine(path, number, "'text' holds half of a surrogate pair, which is no character")
    shifted = entry["shifted"]
    pair, family = entry.get("pair", entry["id"]), entry.get("family", "shifted" if shifted else "clean")
    dose = entry.get("dose", 1.0 if shifted else 0.0)
    if not isinstance(pair, str) or not isinstance(family, str):
        raise MalformedLine(path, number, "'pair' and 'family' must be strings")
    if isinstance(dose, bool) or not isinstance(dose, int | float) or not 0 <= dose <= 1:
        raise MalformedLine(path, number, f"'dose' is {dose!r}, not a share from 0 to 1")
    return Case(entry["id"], entry["text"], pair, family, float(dose), shifted)
