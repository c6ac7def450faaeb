"""Named benchmarks: which texts, which shift, which negatives; one file a suite, listed in `SUITES`."""

from collections.abc import Callable

from perimetry.suites import (
    asr,
    case,
    code_switch,
    domain,
    encodings,
    gibberish,
    jailbreaks,
    many_shot,
    ocr,
    persuasion,
    random_tokens,
    suffixes,
    typo_kinds,
    typos,
    word_order,
)
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
    "asr": asr.build,
    "case": case.build,
    "code_switch": code_switch.build,
    "domain": domain.build,
    "encodings": encodings.build,
    "gibberish": gibberish.build,
    "jailbreaks": jailbreaks.build,
    "many_shot": many_shot.build,
    "ocr": ocr.build,
    "persuasion": persuasion.build,
    "random_tokens": random_tokens.build,
    "suffixes": suffixes.build,
    "typo_kinds": typo_kinds.build,
    "typos": typos.build,
    "word_order": word_order.build,
}
"""The builders of the suites by name."""
