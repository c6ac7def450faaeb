"""Named benchmarks: which texts, which shift, which negatives; one file a suite, listed in `SUITES`."""

from collections.abc import Callable

from perimetry.suites import case, jailbreaks, typos, word_order
from perimetry.suites.base import Case, Suite, SuiteInputs
from perimetry.suites.jailbreaks import BENIGN_DATASETS, benign_documents
from perimetry.suites.jsonl import read_suite, write_suite
from perimetry.suites.passages import cut_to_tokens, passages

__all__ = [
    "BENIGN_DATASETS",
    "SUITES",
    "Case",
    "Suite",
    "SuiteInputs",
    "benign_documents",
    "cut_to_tokens",
    "passages",
    "read_suite",
    "write_suite",
]

SUITES: dict[str, Callable[[SuiteInputs], Suite]] = {
    "case": case.build,
    "jailbreaks": jailbreaks.build,
    "typos": typos.build,
    "word_order": word_order.build,
}
"""The builders of the suites by name."""
