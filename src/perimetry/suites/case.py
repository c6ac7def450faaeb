"""Recased words in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import LetterCase
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["CASE_DOSES", "build", "case"]

CASE_DOSES = (0.05, 0.10, 0.20, 0.50)
"""Shares of the words that the style can change."""


def case(
    documents: Sequence[Document],
    *,
    length: Length,
    seed: int,
    doses: Sequence[float] = CASE_DOSES,
    styles: Sequence[str] = ("random", "upper", "alternating"),
) -> Suite:
    """The documents and their twins with words in another case; each style is a family."""
    dials = {style: LetterCase(style) for style in styles}
    description = "Held-out clean passages against the same passages with a share of their words in another case."
    return dial_suite("case", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return case(texts, length=inputs.length, seed=inputs.seed)
