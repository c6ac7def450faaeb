"""Texts of other domains: novel, and benign."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perimetry.assets.documents import Document
from perimetry.suites.base import Length, Suite, SuiteInputs, check_suite
from perimetry.suites.matching import CUT, TOLERANCE, Passages, match, spread
from perimetry.suites.passages import distinct

__all__ = ["DOMAINS", "Source", "build", "domain", "table"]

LETTERS_A_TOKEN = 12
"""No text has more letters to a token than this for long: what comes behind is not even looked at."""
ROWS = ("Ashford", "Brook", "Calder", "Dunmore", "Elm", "Farley", "Grange", "Harrow", "Iver", "Kelso", "Lorne", "Marsh")
COLUMNS = ("count", "mean", "sd", "min", "max", "share", "rank", "year", "price", "area", "index", "rate")
TABLE_ROWS = 24


class Source(NamedTuple):
    """Where the texts of a domain lie."""

    name: str
    """A text that `read_texts` takes."""
    label: str = ""
    """Only texts with this label; all of them where it is empty."""


DOMAINS: dict[str, Source] = {
    "code": Source("probe-texts/158_code_C"),
    "legal": Source("probe-texts/76_trial-court", "bigram"),
    "medical": Source("probe-texts/101_disease_class"),
    "messages": Source("probe-texts/96_spam_is", "0"),
    "news": Source("probe-texts/97_news_class"),
    "reviews": Source("probe-texts/111_yelp_data"),
    "tickets": Source("probe-texts/103_it_tick"),
}
"""Domains and their texts: source code in several languages, sentences of court rulings that speak of a trial court, medical
abstracts, text messages, news agencies' reports, restaurant reviews, tickets to a help desk. `table` makes one more domain."""


def domain(
    texts: Mapping[str, Sequence[Document]],
    clean: Sequence[Document],
    *,
    length: Length,
    limit: int,
    n: int,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Suite:
    """At most `n` texts, spread evenly over the domains, each against a clean passage of its own length.

    Texts longer than `limit` tokens are cut to whole words and their ids end in `#cut`; near copies are left out.
    Nothing here is an attack: a meter of shift should score these high, a detector of attacks should not, and an alarm
    on them is a false one for the latter. Errors: `TooFewSamples` when nothing remains.
    """
    rng = random.Random(f"domain:{seed}")
    pool: list[Document] = []
    # Twice its share of each: what is too short, or a near copy, can be left out.
    enough = 2 * n // max(1, len(texts)) + 8
    for family, documents in texts.items():
        drawn = rng.sample(list(documents), min(enough, len(documents)))
        pool += [Document(d.id, d.text[: LETTERS_A_TOKEN * limit], {**d.meta, "family": family}) for d in drawn]
    unique = distinct(pool)
    chosen = spread(unique, length, limit, n, rng)
    matched = match(chosen, {"passage": Passages(clean, length, rng)}, tolerance=tolerance, length=length)
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "near_copies_left_out": len(pool) - len(unique),
        "cut_to_limit": sum(case.id.endswith(CUT) for case in chosen),
        "families": dict(sorted(Counter(case.family for case in chosen).items())),
        "lengths": matched.rows,
    }
    description = "Benign texts of other domains (novel, no attack) against held-out clean passages of the same length."
    benign = tuple(sorted({case.family for case in chosen}))
    return check_suite(Suite("domain", description, (*chosen, *matched.cases), matching, benign))


def table(rng: random.Random) -> str:
    """A made-up table of numbers: comma-separated or in the mark-up of Markdown."""
    columns = rng.sample(COLUMNS, rng.randint(3, 6))
    names = rng.sample(ROWS, len(ROWS))
    rows = [["name", *columns]]
    for i in range(TABLE_ROWS):
        numbers = [f"{rng.uniform(0, 10 ** rng.randint(1, 4)):.{rng.randint(0, 2)}f}" for _ in columns]
        rows.append([f"{names[i % len(names)]}_{i // len(names) + 1}", *numbers])
    if rng.random() < 0.5:
        return "\n".join(",".join(row) for row in rows)
    rule = ["---"] * len(rows[0])
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` texts of at most `inputs.limit` tokens: `DOMAINS` and made-up tables."""
    texts: dict[str, Sequence[Document]] = {}
    for family, source in DOMAINS.items():
        found = inputs.read(source.name)
        texts[family] = [d for d in found if not source.label or d.meta.get("label") == source.label]
    rng = random.Random(f"tables:{inputs.seed}")
    texts["tables"] = [Document(f"tables/{i}", table(rng), {}) for i in range(inputs.n // len(DOMAINS) + 1)]
    return domain(texts, inputs.clean, length=inputs.length, limit=inputs.limit, n=inputs.n, seed=inputs.seed)
