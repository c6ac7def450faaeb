"""Jailbreak prompts against benign texts of the same length."""

import random
from collections import Counter
from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.suites.base import Length, Suite, SuiteInputs, check_suite
from perimetry.suites.matching import CUT, TOLERANCE, Passages, Prompts, RolePlays, match, spread
from perimetry.suites.passages import distinct

__all__ = ["BENIGN_DATASETS", "benign_documents", "build", "jailbreaks"]

BENIGN_DATASETS = ("110_aimade_humangpt3", "111_yelp_data", "44_phys_tf", "45_context_ans", "48_cm_correct")
"""Parts of the `probe-texts` asset that hold benign running English: questions and answers, reviews, how-to texts, stories
with questions, people who tell of a quarrel. The other parts are lists, labels, code, other languages, or hateful."""


def jailbreaks(
    attacks: Sequence[Document],
    clean: Sequence[Document],
    benign: Sequence[Document],
    *,
    length: Length,
    limit: int,
    n: int,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Suite:
    """At most `n` attacks, spread evenly over their families, each with up to three negatives of its own length.

    The negatives of an attack, all within `tolerance` of its tokens: an encyclopaedia `passage` from `clean`, a benign
    `prompt` from `benign`, and a benign `role_play` or instruction around one. They are cut at whole words, from their
    beginning (passages from a random word), because attacks begin at their beginning too. Near copies of an attack are
    left out, attacks longer than `limit` tokens are cut to whole words and their ids end in `#cut`; the matching
    counts both. Topics are not matched. Errors: `TooFewSamples` when nothing remains.
    """
    rng = random.Random(f"jailbreaks:{seed}")
    unique = distinct(attacks)
    chosen = spread(unique, length, limit, n, rng)
    cases = list(chosen)
    makers = {
        "passage": Passages(clean, length, rng),
        "prompt": Prompts(benign, length, rng),
        "role_play": RolePlays(benign, length, rng),
    }
    matched = match(chosen, makers, tolerance=tolerance, length=length)
    cases += matched.cases
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "attacks": len(attacks),
        "near_copies_left_out": len(attacks) - len(unique),
        "cut_to_limit": sum(attack.id.endswith(CUT) for attack in chosen),
        "families": dict(sorted(Counter(attack.family for attack in chosen).items())),
        "lengths": matched.rows,
    }
    description = "Jailbreak prompts by family against benign passages, prompts and role plays of the same length."
    return check_suite(Suite("jailbreaks", description, tuple(cases), matching))


def benign_documents(documents: Sequence[Document]) -> list[Document]:
    """The documents that may serve as benign prompts: those of `BENIGN_DATASETS`, and those of no named data set."""
    return [d for d in documents if d.meta.get("dataset", BENIGN_DATASETS[0]) in BENIGN_DATASETS]


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` attacks of at most `inputs.limit` tokens."""
    return jailbreaks(
        inputs.attacks,
        inputs.clean,
        benign_documents(inputs.benign),
        length=inputs.length,
        limit=inputs.limit,
        n=inputs.n,
        seed=inputs.seed,
    )
