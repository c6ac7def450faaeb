"""Dials that move an input out of distribution: one file a perturbation, listed in `PERTURBATIONS`."""

from perimetry.perturb.asr import Asr
from perimetry.perturb.base import AbstractPerturbation
from perimetry.perturb.case import LetterCase
from perimetry.perturb.code_switch import CodeSwitch
from perimetry.perturb.ocr import Ocr
from perimetry.perturb.random_tokens import RandomTokens
from perimetry.perturb.suffix import GibberishSuffix
from perimetry.perturb.typos import Typos
from perimetry.perturb.word_order import WordOrder

__all__ = [
    "PERTURBATIONS",
    "AbstractPerturbation",
    "Asr",
    "CodeSwitch",
    "GibberishSuffix",
    "LetterCase",
    "Ocr",
    "RandomTokens",
    "Typos",
    "WordOrder",
]

PERTURBATIONS: dict[str, type[AbstractPerturbation]] = {
    "asr": Asr,
    "case": LetterCase,
    "code_switch": CodeSwitch,
    "ocr": Ocr,
    "random_tokens": RandomTokens,
    "suffix": GibberishSuffix,
    "typos": Typos,
    "word_order": WordOrder,
}
"""The perturbations by name."""
