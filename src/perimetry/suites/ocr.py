"""Reading errors of a scanner in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import Ocr
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["OCR_DOSES", "build", "ocr"]

OCR_DOSES = (0.05, 0.10, 0.20, 0.50)
"""Shares of the words that a scanner can misread."""


def ocr(documents: Sequence[Document], *, length: Length, seed: int, doses: Sequence[float] = OCR_DOSES) -> Suite:
    """The documents and their twins with misread letters (family `ocr`)."""
    description = "Held-out clean passages against the same passages with letters misread in a share of their words."
    return dial_suite("ocr", description, documents, {"ocr": Ocr()}, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return ocr(texts, length=inputs.length, seed=inputs.seed)
