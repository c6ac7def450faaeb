"""The figures of the lab `formal-languages`."""

from collections.abc import Mapping

from perimetry.labs.base import Job, Outcome, Panel
from perimetry.labs.lines import medians

__all__ = ["deep", "exchanged", "shallow", "straight"]


def deep(found: Mapping[Job, Outcome]) -> Panel:
    """Validity from deep beginnings by active latents."""
    names = {
        "brackets, six open": ("dyck", "deep validity, topk"),
        "the same at the published learning rate": ("dyck", "deep validity, slow 1x"),
        "expressions, seven wanted": ("expr", "deep validity, topk"),
    }
    return Panel(
        "formal-deep",
        "Few latents seem to lose a grammar where they were hardly trained",
        "active latents",
        "share of strings that are valid, deep beginnings",
        medians(found, names),
        log_x=True,
        caption="A model writes on, its states being reconstructions; what it closes shows what they keep.",
    )


def shallow(found: Mapping[Job, Outcome]) -> Panel:
    """Validity of strings written from nothing, which hardly depends on anything."""
    names = {
        "brackets": ("dyck", "validity, topk"),
        "expressions": ("expr", "validity, topk"),
        "English": ("english", "validity, topk"),
    }
    return Panel(
        "formal-shallow",
        "Strings from nothing are short, and valid with almost any dictionary",
        "active latents",
        "share of strings that are valid",
        medians(found, names),
        log_x=True,
    )


def straight(found: Mapping[Job, Outcome]) -> Panel:
    """What the causal loss straightens, and what it costs."""
    names = {
        "relative error of interpolation": ("dyck", "relative interpolation error, causal"),
        "validity": ("dyck", "validity, causal"),
    }
    return Panel(
        "formal-causal",
        "A causal loss straightens the model between latents, at the cost of its behaviour",
        "log10(1 + weight of the causal loss)",
        "relative error; share of strings that are valid",
        medians(found, names),
    )


def exchanged(found: Mapping[Job, Outcome]) -> Panel:
    """What scores see of exchanged tokens."""
    names = ("bernoulli", "recon_error", "l0", "energy", "bernoulli or nll", "mahalanobis", "knn", "norm", "nll")
    return Panel(
        "formal-exchanged",
        "Brackets with some tokens exchanged",
        "tokens exchanged",
        "AUROC",
        medians(found, {name: ("dyck", f"AUROC, {name}") for name in names}),
        log_x=True,
        level=0.5,
        caption="Likelihood sees every exchanged token, and finds legal strings that are nested deeper than any likelier than usual.",
    )
