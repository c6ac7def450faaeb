"""What a meter says of itself beyond what scoring needs: the card that the page shows. Runs in the worker only: it imports torch."""

import datetime
from pathlib import Path
from typing import Any, Final

from perimetry.artifact import MANIFEST
from perimetry.measures.stats import spearman
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.pooling import parse_score
from perimetry.shift.tables import LEVELS

__all__ = ["BASELINES", "card_of", "written_on"]

BASELINES: Final = {
    "nll": "how badly the model predicts the text (log perplexity)",
    "mahalanobis": "distance of its activations from the clean mean, in their own spread",
    "cosine": "angle between its activations and the nearest clean ones",
    "recon_error": "what the dictionary cannot rebuild",
    "tokens_per_word": "into how many pieces the tokenizer cuts a word",
}
"""Scores that need no concepts, with what they measure."""
_LEAST: Final = 4
"""Prompts that a rank correlation needs."""


def written_on(folder: Path) -> str:
    """When the meter in a folder was written, as far as the date of its manifest tells; ISO 8601, UTC. Errors: `OSError`."""
    seconds = (folder / MANIFEST).stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def card_of(reader: Meter | MultiMeter, alpha: float, written: str | None = None) -> dict[str, Any]:
    """Plain values: what was read to fit the meter, the scores kept beside the main one, and how a clean token scores.

    `baselines`: for each of `BASELINES` the threshold at `alpha` over all calibration prompts and Spearman's correlation with the main
    score over them; of several layers, that of the first. `tokens`: mean and standard deviation of the token scores on clean text, where
    all tokens are scored by one detector. `written`: of `written_on`.
    """
    meters = list(reader.meters.values()) if isinstance(reader, MultiMeter) else [reader]
    first = meters[0]
    found: dict[str, Any] = {
        "detector": reader.main,
        "detectors": list(first.normal.detectors),
        "layers": [meter.extractor.tap.layer for meter in meters],
        "architecture": first.sae.architecture,
        "width": first.sae.d_sae,
        "calibration_prompts": first.details["calibration_prompts"],
        "profile_prompts": first.details["profile_prompts"],
        "profile_tokens": first.details["profile_tokens"],
        "baselines": _baselines(first, alpha),
    }
    if written is not None:
        found["written"] = written
    if len(meters) == 1:
        found["tokens"] = _tokens(first)
    return found


def _baselines(meter: Meter, alpha: float) -> list[dict[str, Any]]:
    calibration = meter.normal.calibration
    found: list[dict[str, Any]] = []
    for name, what in BASELINES.items():
        if name not in calibration.scores:
            continue
        pooled = next(t for t in calibration.thresholds(name, alpha) if t.group == "pooled")
        entry: dict[str, Any] = {"name": name, "what": what, "n": pooled.alarms.n_calibration}
        if pooled.value != float("inf"):
            entry["threshold"] = pooled.value
        both = calibration.joint([meter.main, name])
        if both is not None and both.shape[0] >= _LEAST:
            same = spearman(both[:, 0], both[:, 1])
            entry["correlation"] = [same.estimate, same.low, same.high]
        found.append(entry)
    return found


def _tokens(meter: Meter) -> dict[str, float]:
    """Moments of the scores that single tokens get (those of the main detector, or of `surprise` where it has none)."""
    name = parse_score(meter.main, LEVELS).detector
    reference = meter.normal.references[name if LEVELS[name] == "token" else "surprise"]
    return {"mean": reference.mean, "sd": reference.deviation}
