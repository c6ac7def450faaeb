"""The figures of the lab `safety-finetuning`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["apart", "refusing", "sides", "steep"]

_NAMED = {
    "plain fine-tuning": ("plain", "medium"),
    "SSFT": ("ssft", "medium"),
    "SSFT, smaller rate": ("ssft", "small"),
    "unlearning": ("unlearn", "medium"),
    "DPO": ("dpo", "medium"),
}


def _lines(curve: str) -> dict[str, tuple[str, str]]:
    return {name: (arm, f"{curve}, {rate}") for name, (arm, rate) in _NAMED.items()}


def apart(found: Mapping[Job, Outcome]) -> Panel:
    """Separation by block."""
    return Panel(
        "safety-apart",
        "How far safe and unsafe prompts stand apart",
        "block",
        "difference of mean sides",
        medians(found, _lines("separation")),
        caption="Where the answer begins, after the GELU; a side is the distance from the unsafe mean less that from the safe one.",
    )


def sides(found: Mapping[Job, Outcome]) -> Panel:
    """Sides of attacks."""
    kinds = ("safe", "unsafe", "CO-Text", "CO-Task", "MisGen", "Adv")
    return Panel(
        "safety-sides",
        "Sides of attacks after supervised fine-tuning, smaller rate",
        "share of prompts",
        "side (above 0: safe)",
        medians(found, {kind: ("ssft", f"sides of {kind}, small") for kind in kinds}),
        level=0.0,
        caption="Refused attacks are shown too.",
    )


def steep(found: Mapping[Job, Outcome]) -> Panel:
    """Steepness of the answer on the way."""
    names = {
        f"{method.upper()}, {kind}": (method, f"steepness of {kind}, medium")
        for method in ("ssft", "dpo")
        for kind in ("safe", "unsafe")
    }
    return Panel(
        "safety-steep",
        "How steep the answer is in the prompt",
        "share of the way from before to after fine-tuning",
        "gradient of the greatest logit",
        medians(found, names),
        caption="Norm with respect to the embeddings of the prompt, mean over prompts.",
    )


def refusing(found: Mapping[Job, Outcome]) -> Panel:
    """Refusal on the way."""
    return Panel(
        "safety-refusing",
        "Refusal of unsafe prompts on that way",
        "share of the way from before to after fine-tuning",
        "share refused",
        medians(found, _lines("refusal of unsafe")),
    )
