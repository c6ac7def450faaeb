"""The model card: what scores, on what it was calibrated, what was measured beside it, and what nobody promises."""

from collections.abc import Mapping
from typing import Any, Final

from perimetry import __version__
from perimetry.monitor.engine import Engine
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.web.escapes import plain
from perimetry.monitor.web.words import count, interval, number, sure

__all__ = ["NOT_PROMISED", "PROMISED", "card_view"]

PROMISED: Final = (
    "For prompts that could have been calibration prompts (exchangeable with them), at most the stated share is flagged, averaged over "
    "calibration sets. What this calibration set realises lies within the interval beside each threshold, 95 times in 100.",
    "No score is ever guessed: what was cut, is not finite, or comes from a model other than the calibrated one is an error.",
    "An answer never changes with the traffic: drift is reported and moves no threshold.",
)
NOT_PROMISED: Final = (
    "Safety against people who try to be missed. A prompt can be made to score low.",
    "That a prompt inside is answered well, or one outside badly. The score says how unusual the reading is, not whether the model is wrong.",
    "Languages, lengths and formats that were not in the calibration set. A thin group falls back to all prompts, and says so.",
    "Scores of responses: only prompts were calibrated.",
    "Budgets of false drift alarms for this very calibration set: they hold averaged over calibration sets.",
)
_NAMES: Final = {
    "model": "Model",
    "model_rev": "Model revision",
    "tap": "Where it is read",
    "detector": "Score",
    "sae_sha256": "Dictionary (SHA-256)",
    "calibration_sha256": "Calibration (SHA-256)",
    "meter": "Meter",
    "template_sha256": "Chat template (SHA-256)",
    "dtype": "Computes in",
    "backend": "Backend",
    "batching": "Batching",
}


def card_view(config: HttpConfig, engine: Engine) -> dict[str, Any]:
    """Everything of the view, in words."""
    made, card = engine.artifact, engine.card
    known = [(title, plain(made[name])) for name, title in _NAMES.items() if name in made]
    rest = [(plain(name), plain(value)) for name, value in made.items() if name not in _NAMES]
    return {
        "version": __version__,
        "artifact": [*known, *rest],
        "about": _about(card),
        "groups": [
            {
                "name": plain(group.name),
                "n": count(group.n),
                "alpha_min": number(group.alpha_min),
                "threshold": number(group.threshold),
                "fpr": interval((group.fpr_low, group.fpr_high)),
            }
            for group in engine.groups
        ],
        "alpha": number(config.alpha),
        "baselines": [_baseline(one) for one in card.get("baselines") or ()],
        "main": plain(str(card.get("detector") or made.get("detector") or "the score")),
        "limits": [(name, _said(value)) for name, value in {**config.limits.model_dump(), **engine.limits}.items()],
        "mode": config.mode,
        "on_error": config.fails,
        "promised": PROMISED,
        "not_promised": NOT_PROMISED,
    }


def _said(value: object) -> str:
    return count(value) if isinstance(value, int) else number(sure(value))


def _about(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    titles = {
        "architecture": "Kind of dictionary",
        "width": "Concepts",
        "layers": "Blocks that are read",
        "calibration_prompts": "Calibration prompts",
        "profile_prompts": "Clean prompts it was fitted on",
        "profile_tokens": "Clean tokens it was fitted on",
        "written": "Written",
    }
    found: list[tuple[str, str]] = []
    for name, title in titles.items():
        value = card.get(name)
        if isinstance(value, list):
            found.append((title, ", ".join(plain(str(one)) for one in value)))
        elif value is not None:
            found.append((title, count(value) if isinstance(value, int) else plain(str(value))))
    return found


def _baseline(one: Mapping[str, Any]) -> dict[str, str]:
    same = [sure(end) for end in one.get("correlation") or ()]
    return {
        "name": plain(str(one["name"])),
        "what": plain(str(one.get("what", ""))),
        "threshold": number(sure(one.get("threshold"))),
        "n": _said(one.get("n")),
        "same": number(same[0], 2) if same else "–",
        "ends": f"{number(same[1], 2)} to {number(same[2], 2)}" if len(same) == 3 else "–",
    }
