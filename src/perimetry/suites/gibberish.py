"""Gibberish at the end of held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import GibberishSuffix
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["GIBBERISH_DOSES", "build", "gibberish"]

GIBBERISH_DOSES = (0.05, 0.10, 0.20, 0.50)
"""Shares of the words that the gibberish takes."""


def gibberish(
    documents: Sequence[Document], *, length: Length, seed: int, doses: Sequence[float] = GIBBERISH_DOSES
) -> Suite:
    """The documents and their twins whose last words are strings of random pieces (family `suffix`).

    The twins have as many words but more tokens, as real suffixes have; the matching says how many more.
    """
    dials = {"suffix": GibberishSuffix()}
    description = "Held-out clean passages against the same passages whose last words are gibberish."
    return dial_suite("gibberish", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return gibberish(texts, length=inputs.length, seed=inputs.seed)
