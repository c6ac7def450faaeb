"""Requests rewritten to persuade against benign texts of the same length."""

import random

from perimetry.assets.documents import Document
from perimetry.suites.base import Suite, SuiteInputs
from perimetry.suites.jailbreaks import BENIGN_DATASETS, jailbreaks

__all__ = ["build"]

REWRITTEN = "pyrit-prompts/persuasion"


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` rewritten requests, with the negatives of `jailbreaks`.

    The toolkit carries fewer than twenty, so intervals are wide; all are one family.
    """
    rng = random.Random(f"persuasion:{inputs.seed}")
    benign: list[Document] = []
    for name in BENIGN_DATASETS:
        found = list(inputs.read(f"probe-texts/{name}"))
        benign += rng.sample(found, min(100, len(found)))
    suite = jailbreaks(
        list(inputs.read(REWRITTEN)),
        inputs.clean,
        benign,
        length=inputs.length,
        limit=inputs.limit,
        n=inputs.n,
        seed=inputs.seed,
    )
    description = (
        "Harmful requests rewritten to persuade against benign passages, prompts and role plays of their length."
    )
    return suite._replace(name="persuasion", description=description)
