"""Typing errors in held-out clean passages, one kind at a time."""

from perimetry.perturb.typos import TYPO_KINDS
from perimetry.suites.base import Suite, SuiteInputs
from perimetry.suites.passages import passages
from perimetry.suites.typos import typos

__all__ = ["KIND_DOSES", "build"]

KIND_DOSES = (0.05, 0.20)
"""Fewer doses than `typos` has, because there are four families."""


def build(inputs: SuiteInputs) -> Suite:
    """The suite on `inputs.n` passages of `inputs.words` words, the very passages of the suite `typos`."""
    texts = passages(inputs.clean, words=inputs.words, n=inputs.n, seed=inputs.seed)
    suite = typos(texts, length=inputs.length, seed=inputs.seed, doses=KIND_DOSES, kinds=sorted(TYPO_KINDS))
    return suite._replace(name="typo_kinds")
