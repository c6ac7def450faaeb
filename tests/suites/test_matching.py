"""Negatives: the nearest in length within the tolerance, none where none is near enough."""

import random
from collections import Counter

from perimetry.suites.base import Case
from perimetry.suites.matching import CUT, SHORTEST, Closest, Passages, Prompts, RolePlays, match, spread
from suites.samples import documents, length, prose


def words(text: str) -> int:
    return len(text.split())


def test_the_nearest_of_what_is_offered_is_kept() -> None:
    best = Closest(10, 0.2, words)
    assert not best.offer(prose(0, 13))
    assert not best.offer(None)
    assert best.offer(prose(0, 8))
    assert best.offer(prose(1, 11))
    assert not best.offer(prose(2, 9))
    assert best.text == prose(1, 11)
    assert best.offer(prose(3, 10))
    assert best.done


def test_what_has_no_text_of_the_length_counts_as_unmatched() -> None:
    shifted = [Case(f"c{i}", prose(i, size), f"c{i}", "f", 1.0, shifted=True) for i, size in enumerate((10, 20, 90))]
    makers = {"prompt": Prompts(documents("d", 4, 20), words, random.Random(0))}
    found = match(shifted, makers, tolerance=0.1, length=words)
    assert [c.pair for c in found.cases] == ["c0", "c1"]
    assert (found.rows[0]["unmatched"], found.rows[0]["n_clean"]) == (1, 2)


def test_every_maker_gives_none_without_documents() -> None:
    rng = random.Random(0)
    assert [maker([], length, rng).draw(30, 0.1) for maker in (Passages, Prompts, RolePlays)] == [None] * 3


def test_cases_are_spread_over_the_families_cut_and_long_enough() -> None:
    pool = [
        *documents("a", 9, 30, family="a"),
        *documents("b", 2, 90, family="b"),
        *documents("c", 1, 2, family="c"),
    ]
    found = spread(pool, words, 50, 7, random.Random(1))
    assert len(found) == 7
    assert Counter(c.family for c in found)["b"] == 2
    assert all(SHORTEST <= words(c.text) <= 50 for c in found)
    assert {c.family for c in found if c.id.endswith(CUT)} == {"b"}
