"""Mishearings of a speech recogniser in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import Asr
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["ASR_DOSES", "asr", "build"]

ASR_DOSES = (0.05, 0.10, 0.20, 0.50)
"""Shares of the words that sound like another one, which are about half of English running text."""


def asr(documents: Sequence[Document], *, length: Length, seed: int, doses: Sequence[float] = ASR_DOSES) -> Suite:
    """The documents and their twins with words misheard (family `asr`): real words in the wrong place."""
    description = "Held-out clean passages against the same passages with words taken for others that sound alike."
    return dial_suite("asr", description, documents, {"asr": Asr()}, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return asr(texts, length=inputs.length, seed=inputs.seed)
