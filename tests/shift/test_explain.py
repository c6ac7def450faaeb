"""What a reading shows beside its score."""

import math

import pytest
import torch

from perimetry.sae.base import Codes
from perimetry.shift.explain import ContextBook, explain_prompt, snippet

RATES = torch.tensor([0.5, 0.01, 0.2, 0.001])
BOOK = ContextBook(torch.tensor([0, 1, 1, 3, 3]), ("of «zero»", "of «two»", "more «two»"))
PIECES = (" the", " cat", " sat")


def codes(rows: list[dict[int, float]]) -> Codes:
    indices, values = torch.zeros(len(rows), 4, dtype=torch.int64), torch.zeros(len(rows), 4)
    for token, row in enumerate(rows):
        for slot, (latent, value) in enumerate(row.items()):
            indices[token, slot], values[token, slot] = latent, value
    return Codes(indices, values, 4)


def test_concepts_are_ranked_by_their_share_of_the_surprise() -> None:
    rows = [{0: 1.0, 2: 3.0}, {2: 5.0, 1: 0.1}, {2: 4.0, 0: 9.0}]
    found = explain_prompt(codes(rows), RATES, PIECES, BOOK)
    # 2 fires three times at log 4 each (4.16), 1 once at log 99 (4.60), 0 twice at nothing.
    assert [c.latent for c in found] == [1, 2, 0]
    assert [c.surprise for c in found] == pytest.approx([math.log(99), math.log(4), 0.0], abs=1e-6)
    assert [c.clean_rate for c in found] == pytest.approx([0.01, 0.2, 0.5])


def test_the_token_is_where_the_concept_fires_hardest() -> None:
    rows = [{2: 3.0}, {2: 5.0}, {2: 4.0}]
    (only,) = explain_prompt(codes(rows), RATES, PIECES, BOOK)
    assert (only.token, only.position, only.activation) == (" cat", 1, 5.0)
    assert only.contexts == ("of «two»", "more «two»")


def test_the_shares_of_all_concepts_make_the_surprise() -> None:
    rows = [{0: 1.0, 2: 3.0}, {3: 5.0, 1: 0.1}, {2: 4.0, 3: 9.0}]
    found = explain_prompt(codes(rows), RATES, PIECES, BOOK, limit=10)
    times = {latent: sum(latent in row for row in rows) for latent in range(4)}
    direct = sum(math.log((1 - float(RATES[f])) / float(RATES[f])) for row in rows for f in row)
    assert sum(times[c.latent] * c.surprise for c in found) == pytest.approx(direct, rel=1e-6)


def test_ties_go_to_the_lower_index_and_the_limit_holds() -> None:
    found = explain_prompt(codes([{3: 1.0, 1: 1.0, 2: 1.0}]), torch.full((4,), 0.1), ("x",), BOOK, limit=2)
    assert [c.latent for c in found] == [1, 2]


def test_nothing_active_explains_nothing() -> None:
    assert explain_prompt(codes([{}, {}]), RATES, ("a", "b"), BOOK) == ()


def test_the_book_gives_no_context_for_what_never_fired() -> None:
    assert [BOOK.of(f) for f in range(4)] == [("of «zero»",), (), ("of «two»", "more «two»"), ()]


@pytest.mark.parametrize(
    ("text", "span", "wanted"),
    [
        ("the cat sat", (4, 7), "the «cat» sat"),
        ("the\n\n cat\tsat", (6, 9), "the «cat» sat"),
        ("cat", (0, 3), "«cat»"),
        ("a 😀 b", (2, 3), "a «😀» b"),
    ],
)
def test_snippets(text: str, span: tuple[int, int], wanted: str) -> None:
    assert snippet(text, *span) == wanted


def test_snippets_are_cut_on_both_sides() -> None:
    assert snippet("abcdefghij", 4, 6, reach=2) == "cd«ef»gh"
