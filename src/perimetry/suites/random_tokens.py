"""Random words and random letters in held-out clean passages."""

import re
from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import RandomTokens
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["RANDOM_DOSES", "build", "random_tokens"]

RANDOM_DOSES = (0.05, 0.10, 0.20, 0.50)
"""Shares of the words."""
WORD = re.compile(r"[^\W\d_]+")


def random_tokens(
    documents: Sequence[Document], *, length: Length, seed: int, doses: Sequence[float] = RANDOM_DOSES
) -> Suite:
    """The documents and their twins with words replaced: by words of all the documents, or by random letters.

    The first (family `words`) leaves the lengths and the frequencies of words as they are, the second (family
    `letters`) only their lengths in letters.
    """
    vocabulary = tuple(word for document in documents for word in WORD.findall(document.text))
    dials = {"words": RandomTokens("words", vocabulary), "letters": RandomTokens("letters")}
    description = "Held-out clean passages against the same passages with words replaced by random words or letters."
    return dial_suite("random_tokens", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return random_tokens(texts, length=inputs.length, seed=inputs.seed)
