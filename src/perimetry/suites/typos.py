"""Typing errors in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import Typos
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["TYPO_DOSES", "build", "typos"]

TYPO_DOSES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.50)
"""Shares of the words of at least three letters. One word is the least: passages of fewer than 75 such words have the same
twin at the two smallest doses, and the matching says what share was really changed."""


def typos(
    documents: Sequence[Document],
    *,
    length: Length,
    seed: int,
    doses: Sequence[float] = TYPO_DOSES,
    kinds: Sequence[str] = (),
) -> Suite:
    """The documents and their twins with typing errors of all kinds mixed (family `typos`).

    With `kinds`, names in `TYPO_KINDS`, each kind is a family of its own instead.
    """
    dials = {kind: Typos((kind,)) for kind in kinds} or {"typos": Typos()}
    description = "Held-out clean passages against the same passages with typing errors in a share of their words."
    return dial_suite("typos", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return typos(texts, length=inputs.length, seed=inputs.seed)
