"""Words out of order in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import WordOrder
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["ORDER_DOSES", "ORDER_WINDOWS", "build", "word_order"]

ORDER_DOSES = (0.10, 0.20, 0.50, 1.0)
"""Shares of the windows, or of the words for `throughout`."""
ORDER_WINDOWS = {"window_2": 2, "window_5": 5, "throughout": 0}
"""Families and their windows in words; 0 is the whole passage."""


def word_order(
    documents: Sequence[Document], *, length: Length, seed: int, doses: Sequence[float] = ORDER_DOSES
) -> Suite:
    """The documents and their twins with words out of order; each window is a family."""
    dials = {family: WordOrder(window) for family, window in ORDER_WINDOWS.items()}
    description = "Held-out clean passages against the same words in another order, within windows or throughout."
    return dial_suite("word_order", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return word_order(texts, length=inputs.length, seed=inputs.seed)
