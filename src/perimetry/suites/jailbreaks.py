"""Jailbreak prompts against benign texts of the same length."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, Suite, SuiteInputs, check_suite, compare_lengths
from perimetry.suites.passages import cut_to_tokens, distinct
from perimetry.suites.role_play import role_play

__all__ = ["CUT", "TOLERANCE", "build", "jailbreaks"]

TOLERANCE = 0.1
"""A negative differs from its attack by at most this share of the attack's tokens."""
SHORTEST = 8
"""Attacks of fewer tokens are left out: whole words cannot match their length."""
CUT = "#cut"
"""Ends the id of a case whose text was cut to the token limit."""
DRAWS = 40
"""Texts tried for one negative before it counts as unmatched."""


class _Attack(NamedTuple):
    case: Case
    tokens: int


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
    chosen = _spread(unique, length, limit, n, rng)
    cases = [attack.case for attack in chosen]
    makers = {
        "passage": _Passages(clean, length, rng),
        "prompt": _Prompts(benign, length, rng),
        "role_play": _RolePlays(benign, length, rng),
    }
    rows: list[dict[str, Any]] = []
    for family, maker in makers.items():
        pairs: list[tuple[Case, Case]] = []
        for attack in chosen:
            text = maker.draw(attack.tokens, tolerance)
            if text is not None:
                name = f"{attack.case.pair}/{family}"
                pairs.append((attack.case, Case(name, text, attack.case.pair, family, 0.0, shifted=False)))
        lengths = compare_lengths([a.text for a, _ in pairs], [b.text for _, b in pairs], length) if pairs else {}
        rows.append({"negatives": family, "unmatched": len(chosen) - len(pairs), **lengths})
        cases += [negative for _, negative in pairs]
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "attacks": len(attacks),
        "near_copies_left_out": len(attacks) - len(unique),
        "cut_to_limit": sum(attack.case.id.endswith(CUT) for attack in chosen),
        "families": dict(sorted(Counter(attack.case.family for attack in chosen).items())),
        "lengths": rows,
    }
    description = "Jailbreak prompts by family against benign passages, prompts and role plays of the same length."
    return check_suite(Suite("jailbreaks", description, tuple(cases), matching))


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` attacks of at most `inputs.limit` tokens."""
    return jailbreaks(
        inputs.attacks,
        inputs.clean,
        inputs.benign,
        length=inputs.length,
        limit=inputs.limit,
        n=inputs.n,
        seed=inputs.seed,
    )


def _spread(attacks: Sequence[Document], length: Length, limit: int, n: int, rng: random.Random) -> list[_Attack]:
    """At most `n` attacks, one family after the other in turn until none is left."""
    families: dict[str, list[Document]] = {}
    for attack in attacks:
        families.setdefault(str(attack.meta.get("family", "unknown")), []).append(attack)
    for family in families.values():
        rng.shuffle(family)
    found: list[_Attack] = []
    for turn in range(max(map(len, families.values()), default=0)):
        for name, family in sorted(families.items()):
            if turn < len(family) and len(found) < n:
                attack = _attack(family[turn], name, length, limit)
                found += [attack] if attack.tokens >= SHORTEST else []
    return found


def _attack(document: Document, family: str, length: Length, limit: int) -> _Attack:
    text = cut_to_tokens(document.text, limit, length)
    name = document.id + (CUT if text != document.text else "")
    return _Attack(Case(name, text, document.id, family, 1.0, shifted=True), length(text))


class _Passages:
    """Passages of running text, from a random word of a random document on."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        for _ in range(DRAWS if self.documents else 0):
            words = self.rng.choice(self.documents).text.split(" ")
            start = self.rng.randrange(max(1, len(words) - target // 2))
            # A token holds at least one character and a word has a token or more, so `target` words are enough.
            text = cut_to_tokens(" ".join(words[start : start + target]).strip(), target, self.length)
            if self.length(text) >= (1 - tolerance) * target:
                return text
        return None


class _Prompts:
    """Benign texts, each used once: one that is as long already, else the shortest longer one, cut."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        lengths = [(length(document.text), rng.random(), document) for document in documents]
        self.left = sorted(lengths, key=lambda entry: entry[:2])
        self.length = length

    def draw(self, target: int, tolerance: float) -> str | None:
        near = [i for i, (tokens, *_) in enumerate(self.left) if abs(tokens - target) <= tolerance * target]
        if near:
            best = min(near, key=lambda i: abs(self.left[i][0] - target))
            return self.left.pop(best)[2].text
        longer = [i for i, (tokens, *_) in enumerate(self.left) if tokens > target]
        for i in longer[:DRAWS]:
            text = cut_to_tokens(self.left[i][2].text, target, self.length)
            if self.length(text) >= (1 - tolerance) * target:
                self.left.pop(i)
                return text
        return None


class _RolePlays:
    """Benign instructions around benign texts."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        for _ in range(DRAWS):
            text = role_play(self.documents, target, length=self.length, rng=self.rng)
            if text is not None and self.length(text) >= (1 - tolerance) * target:
                return text
        return None
