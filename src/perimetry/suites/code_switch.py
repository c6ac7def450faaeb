"""Words of other languages in held-out clean passages."""

from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import CodeSwitch
from perimetry.suites.base import Length, Suite, SuiteInputs
from perimetry.suites.dial import dial_suite
from perimetry.suites.passages import passages

__all__ = ["SWITCH_DOSES", "build", "code_switch"]

SWITCH_DOSES = (0.10, 0.20, 0.50, 1.0)
"""Shares of the words that the dictionary translates."""


def code_switch(
    documents: Sequence[Document],
    *,
    length: Length,
    seed: int,
    doses: Sequence[float] = SWITCH_DOSES,
    languages: Sequence[str] = ("spanish", "french", "german"),
) -> Suite:
    """The documents and their twins with common words translated; each language is a family."""
    dials = {language: CodeSwitch(language) for language in languages}
    description = "Held-out clean passages against the same passages with a share of the common words translated."
    return dial_suite("code_switch", description, documents, dials, doses, length=length, seed=seed)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    return code_switch(texts, length=inputs.length, seed=inputs.seed)
