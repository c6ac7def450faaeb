"""Jailbreak prompts against benign texts of the same length."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, Suite, SuiteInputs, check_suite, compare_lengths
from perimetry.suites.passages import cut_to_tokens, distinct
from perimetry.suites.role_play import role_play

__all__ = ["BENIGN_DATASETS", "CUT", "TOLERANCE", "benign_documents", "build", "jailbreaks"]

TOLERANCE = 0.1
"""A negative differs from its attack by at most this share of the attack's tokens."""
SHORTEST = 8
"""Attacks of fewer tokens are left out: whole words cannot match their length."""
CUT = "#cut"
"""Ends the id of a case whose text was cut to the token limit."""
BENIGN_DATASETS = ("110_aimade_humangpt3", "111_yelp_data", "44_phys_tf", "45_context_ans", "48_cm_correct")
"""Parts of the `probe-texts` asset that hold benign running English: questions and answers, reviews, how-to texts, stories
with questions, people who tell of a quarrel. The other parts are lists, labels, code, other languages, or hateful."""
DRAWS = 40
"""Most texts tried for one negative."""
ENOUGH = 6
"""Texts within the tolerance after which the nearest one is taken."""


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


class _Closest:
    """Keeps the text whose length is nearest to a target, among those within the tolerance."""

    def __init__(self, target: int, tolerance: float, length: Length) -> None:
        self.target = target
        self.miss = tolerance * target
        self.length = length
        self.text: str | None = None
        self.good = 0

    def offer(self, text: str | None) -> bool:
        """True when `text` is the nearest so far."""
        miss = abs(self.length(text) - self.target) if text else self.miss + 1
        self.good += miss <= self.miss
        if miss > self.miss or (self.text is not None and miss >= self.miss):
            return False
        self.text, self.miss = text, miss
        return True

    @property
    def done(self) -> bool:
        """True when nothing nearer is worth the search."""
        return self.miss == 0 or self.good >= ENOUGH


class _Passages:
    """Passages of running text, from a random word of a random document on."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        best = _Closest(target, tolerance, self.length)
        for _ in range(DRAWS if self.documents else 0):
            words = self.rng.choice(self.documents).text.split(" ")
            start = self.rng.randrange(max(1, len(words) - target // 2))
            # A word has a token or more, so `target` words are enough.
            best.offer(cut_to_tokens(" ".join(words[start : start + target]).strip(), target, self.length))
            if best.done:
                break
        return best.text


class _Prompts:
    """Benign texts, each used once: as they are where the length is right, else longer ones, cut."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        lengths = [(length(document.text), rng.random(), document) for document in documents]
        self.left = sorted(lengths, key=lambda entry: entry[:2])
        self.length = length

    def draw(self, target: int, tolerance: float) -> str | None:
        best, used = _Closest(target, tolerance, self.length), -1
        nearest = min(range(len(self.left)), key=lambda i: abs(self.left[i][0] - target), default=-1)
        if nearest >= 0 and best.offer(self.left[nearest][2].text):
            used = nearest
        for i in [i for i, (tokens, *_) in enumerate(self.left) if tokens > target][:DRAWS]:
            if best.done:
                break
            if best.offer(cut_to_tokens(self.left[i][2].text, target, self.length)):
                used = i
        if used >= 0:
            self.left.pop(used)
        return best.text


class _RolePlays:
    """Benign instructions around benign texts."""

    def __init__(self, documents: Sequence[Document], length: Length, rng: random.Random) -> None:
        self.documents = list(documents)
        self.length = length
        self.rng = rng

    def draw(self, target: int, tolerance: float) -> str | None:
        best = _Closest(target, tolerance, self.length)
        for _ in range(DRAWS):
            best.offer(role_play(self.documents, target, length=self.length, rng=self.rng))
            if best.done:
                break
        return best.text
