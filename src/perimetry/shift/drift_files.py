"""Readings from JSON lines, and the clean side of a meter, without its language model."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from perimetry.artifact import read_artifact
from perimetry.errors import CorruptArtifact, MissingFile, TooFewSamples, UsageError
from perimetry.shift.conformal import Calibration
from perimetry.shift.drift import DriftReference
from perimetry.shift.meter import KIND
from perimetry.shift.multi_drift import multi_reference
from perimetry.shift.multi_loading import is_multi
from perimetry.shift.reading import Reading, TapReading

__all__ = ["load_reference", "read_readings"]

KEYS = {
    "id": str,
    "score": float,
    "p_value": float,
    "flagged": bool,
    "alpha": float,
    "group": str,
    "fallback": bool,
    "tokens_scored": int,
    "tokens_excluded": int,
    "truncated": bool,
    "detector": str,
    "meter": str,
}


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _reading(row: Any, where: str) -> Reading:
    scores = row.get("scores") if isinstance(row, dict) else None
    if not isinstance(scores, dict) or not all(k in row and _fits(row[k], kind) for k, kind in KEYS.items()):
        raise UsageError(
            f"{where}: this is no reading; wanted a line as `perimetry score METER --input FILE --json` writes it; read "
            "the prompts again"
        )
    if not all(_fits(value, float) for value in scores.values()):
        raise UsageError(f"{where}: a score is no finite number; finite ones are wanted; read the prompt again")
    plain = {k: row[k] for k in KEYS}
    return Reading(**plain, scores=scores, tokens=(), concepts=(), taps=_taps(row.get("taps"), where))


def _taps(found: Any, where: str) -> dict[str, TapReading] | None:
    if found is None:
        return None
    kinds = {"score": float, "p_value": float, "flagged": bool}
    taps = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(t, dict) and all(k in t and _fits(t[k], kind) for k, kind in kinds.items()) for t in taps):
        raise UsageError(f"{where}: the taps lack a finite score, a p-value or a flag; read the prompt again")
    return {name: TapReading(*(tap[k] for k in kinds)) for name, tap in found.items()}


def read_readings(lines: Path | Iterable[str], name: str = "standard input") -> list[Reading]:
    """Readings from the JSON lines of `perimetry score --json`, in order; empty lines are passed over.

    Tokens and concepts are not kept. Errors: `MissingFile`, `UsageError` naming the line.
    """
    if isinstance(lines, Path):
        if not lines.is_file():
            raise MissingFile(f"no file {lines}; wanted the JSON lines of `perimetry score --json`; check the path")
        with open(lines, encoding="utf-8", errors="replace") as handle:
            return read_readings(handle, str(lines))
    found: list[Reading] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}, line {number}: no JSON ({error}); give one reading a line") from error
        found.append(_reading(row, f"{name}, line {number}"))
    return found


def load_reference(path: Path, clean: Iterable[Reading] | None = None) -> DriftReference:
    """The clean side of the meter in `path`; its language model is not needed.

    `clean`: readings of clean prompts by this meter, whose scores are then compared together in place of those that the
    meter kept. Errors: `MissingFile`, `CorruptArtifact`, `Incompatible`, and those of `DriftReference.check`.
    """
    if is_multi(path):
        return _with_clean(multi_reference(path), clean)
    artifact = read_artifact(path, KIND)
    document = artifact.documents.get("meter")
    if not isinstance(document, dict) or "main" not in document or "calibration" not in artifact.tensors:
        raise CorruptArtifact(f"{path} is no meter of this version; make it again")
    calibration = Calibration.from_state(artifact.tensors["calibration"])
    if document["main"] not in calibration.scores:
        raise CorruptArtifact(f"{path} is judged by a score that it was not calibrated on; make it again")
    return _with_clean(DriftReference(calibration, str(document["main"]), artifact.digest), clean)


def _with_clean(reference: DriftReference, clean: Iterable[Reading] | None) -> DriftReference:
    if clean is not None:
        rows = list(clean)
        reference.check(rows)
        if len(rows) < 8:
            raise TooFewSamples(f"the clean readings are {len(rows)}, at least 8 are wanted; read more clean prompts")
        names = [n for n in rows[0].scores if all(n in r.scores for r in rows)]
        if reference.taps is not None:
            raise UsageError(
                "a meter over several layers compares with the clean prompts that it kept; leave --reference away"
            )
        reference.joint = {n: torch.tensor([r.scores[n] for r in rows]) for n in names}
    return reference
