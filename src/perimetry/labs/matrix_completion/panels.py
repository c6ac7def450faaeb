"""The figures of the lab `matrix-completion`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["completed", "counted", "dropped", "hidden"]


def dropped(found: Mapping[Job, Outcome]) -> Panel:
    """Loss of the answers over training."""
    arms = {"sums": "sums", "even attention": "sums_uniform", "nothing to learn": "sums_random"}
    return Panel(
        "completion-drop",
        "A plateau, then a drop",
        "step",
        "loss of the answers, nats",
        medians(found, {name: (arm, "outputs") for name, arm in arms.items()}),
        caption="Sums of neighbours; medians over seeds, bands from the least to the greatest.",
    )


def hidden(found: Mapping[Job, Outcome]) -> Panel:
    """What moves before the loss does."""
    names = {
        "attention on the right numbers": "progress",
        "cosine of two states": "collapse",
        "repetition in what is written": "repetition",
        "share of answers that are right": "accuracy",
    }
    return Panel(
        "completion-hidden",
        "What moves before the loss does",
        "step",
        "share, or cosine",
        medians(found, {name: ("sums", curve) for name, curve in names.items()}),
        caption="The loss of the same runs stands in the figure of the drop.",
    )


def counted(found: Mapping[Job, Outcome]) -> Panel:
    """Active latents over training."""
    return Panel(
        "completion-count",
        "Active latents at the places of the answers",
        "step",
        "active latents",
        medians(found, {"dictionary of the trained model": ("sums", "count")}),
        caption="The dictionary was trained on the states of the trained model and reads those of earlier steps.",
    )


def completed(found: Mapping[Job, Outcome]) -> Panel:
    """Errors of a completer over training."""
    return Panel(
        "completion-matrices",
        "Matrices of rank 1: what is shown, and what is masked",
        "step",
        "mean squared error",
        medians(found, {"shown": ("completion", "shown"), "masked": ("completion", "masked")}),
        log_y=True,
        level=1 / 9,
        caption="The line across is what copying gives: the variance of an entry.",
    )
