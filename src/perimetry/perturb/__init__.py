"""Dials that move an input out of distribution: one file a perturbation, listed in `PERTURBATIONS`."""

from perimetry.perturb.base import AbstractPerturbation
from perimetry.perturb.case import LetterCase
from perimetry.perturb.typos import Typos
from perimetry.perturb.word_order import WordOrder

__all__ = ["PERTURBATIONS", "AbstractPerturbation", "LetterCase", "Typos", "WordOrder"]

PERTURBATIONS: dict[str, type[AbstractPerturbation]] = {
    "case": LetterCase,
    "typos": Typos,
    "word_order": WordOrder,
}
"""The perturbations by name."""
