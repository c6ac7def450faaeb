"""What a reading shows beside its score."""

import math

import pytest
import torch

from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.context import FallaciousF2
from perimetry.shift.explain import ContextBook, explain_prompt, explain_tokens, snippet

from . import worlds

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


def silenced(evidence: Evidence) -> Evidence:
    """The strongest concept of each token does not fire, although the activations are as before."""
    values = evidence.codes.values.clone()
    values[:, 0] = 0
    return evidence._replace(codes=evidence.codes._replace(values=values))


@pytest.mark.parametrize("silent", [False, True])
def test_hot_tokens_say_what_fired_and_what_was_to_be_expected_instead(silent: bool) -> None:
    """Against sets: the active sets of the 16 nearest clean tokens, found by a whole search."""
    profile = worlds.profile_of(*(worlds.clean(seed) for seed in range(4)))
    detector, evidence = FallaciousF2.fit(profile), silenced(worlds.clean(50, 3)) if silent else worlds.shifted(50, 3)
    rows = (evidence.prompt == 1).nonzero()[:, 0]
    scores = torch.rand(rows.numel(), generator=torch.Generator().manual_seed(0))
    texts = tuple(f"of «{f}»" for f in range(worlds.D_SAE))
    book, rates = ContextBook(torch.arange(worlds.D_SAE + 1), texts), profile.firing_rates()
    pieces = [f"t{i}" for i in range(rows.numel())]
    found = explain_tokens(evidence, rows, scores, pieces, detector, rates, book, hottest=4, limit=99)
    assert [t.position for t in found] == scores.topk(4).indices.tolist()
    mean = profile.mean().float()
    clean = torch.nn.functional.normalize(profile.sample.columns["acts"].float() - mean, dim=1)
    for token in found:
        at = rows[token.position]
        near = (clean @ torch.nn.functional.normalize(evidence.acts[at] - mean, dim=0)).topk(16).indices
        sets = [set(r.tolist()) - {worlds.D_SAE} for r in profile.sample.columns["indices"][near]]
        share = {f: sum(f in s for s in sets) / 16 for f in range(worlds.D_SAE)}
        active = set(evidence.codes.dense()[at].nonzero()[:, 0].tolist())
        assert (token.token, token.score) == (f"t{token.position}", float(scores[token.position]))
        assert {c.latent for c in token.fired} == active
        assert {c.latent for c in token.instead} == {f for f in share if share[f] > 0.5 and f not in active}
        for concept in (*token.fired, *token.instead):
            assert concept.share == pytest.approx(share[concept.latent])
            assert concept.clean_rate == pytest.approx(float(rates[concept.latent]))
            assert concept.contexts == (f"of «{concept.latent}»",)
        assert all(not c.supported for c in token.fired if share[c.latent] == 0)
        assert [c.supported for c in token.fired] == sorted(c.supported for c in token.fired)
        assert [c.share for c in token.instead] == sorted((c.share for c in token.instead), reverse=True)
    assert any(t.instead for t in found) is silent
    assert silent or any(not c.supported for t in found for c in t.fired)
    few = explain_tokens(evidence, rows, scores, pieces, detector, rates, book, hottest=1, limit=2)
    assert few[0].fired == found[0].fired[:2]
    assert len(few) == 1


def test_hot_tokens_at_equal_scores_come_in_order() -> None:
    profile = worlds.profile_of(worlds.clean(0))
    evidence, book = worlds.clean(1, 1), ContextBook(torch.zeros(worlds.D_SAE + 1, dtype=torch.int64), ())
    rows = torch.arange(evidence.tokens.numel())
    found = explain_tokens(
        evidence,
        rows,
        torch.ones(rows.numel()),
        ["x"] * rows.numel(),
        FallaciousF2.fit(profile),
        profile.firing_rates(),
        book,
    )
    assert [t.position for t in found] == [0, 1, 2]
