"""The figures of the lab `markov-mixture`."""

from collections.abc import Mapping, Sequence

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["against_optimum", "phases"]

SHOWN = ("energy", "surprise", "l0", "mahalanobis", "knn", "norm", "nll")


def _spoken(arm: str) -> str:
    """Name of an arm, for people.

    >>> _spoken("published_rotary_n32")
    '32 chains, published, rotary'
    """
    parts = arm.split("_")
    number = next(part for part in parts if part[1:].isdigit())
    return ", ".join([f"{number[1:]} chains", *(part for part in parts if part != number)])


def phases(found: Mapping[Job, Outcome], arms: Sequence[str]) -> list[Panel]:
    """The error in and out of the mixture over training, with what the mix of algorithms foretells."""
    names = {"on the mixture": "mixture", "on unseen chains": "unseen", "foretold by the mix": "foretold"}
    # The mixture with the transience stands in front.
    order = sorted(arms, key=lambda arm: arm != "n32")
    return [
        Panel(
            f"markov-{arm.replace('_', '-')}",
            f"Error in context over training, {_spoken(arm)}",
            "step",
            "KL from the truth, nats",
            medians(found, {name: (arm, curve) for name, curve in names.items()}),
            log_x=True,
            caption="Medians over seeds, bands from the least to the greatest. What is foretold for unseen chains is fitted on the mixture alone.",
        )
        for arm in order
    ]


def against_optimum(found: Mapping[Job, Outcome], arms: Sequence[str]) -> list[Panel]:
    """Which part of what could be told of unseen chains each score tells."""
    made: list[Panel] = []
    for arm in arms:
        lines = medians(found, {name: (arm, f"share, {name}") for name in SHOWN})
        if lines:
            made.append(
                Panel(
                    f"markov-share-{arm.replace('_', '-')}",
                    f"Unseen chains told from the mixture, {_spoken(arm)}",
                    "step",
                    "share of the optimum",
                    lines,
                    log_x=True,
                    level=0.0,
                    caption="(AUROC - .5) over that of the exact likelihood ratio, at lengths of context where that is neither blind nor perfect. "
                    "1: all that can be told; 0: nothing.",
                )
            )
    return made
