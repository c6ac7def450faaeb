"""Attacks and negatives of the same length, and nothing cut in silence."""

from collections import Counter

import pytest

from perimetry.assets.documents import Document
from perimetry.errors import TooFewSamples
from perimetry.suites.jailbreaks import benign_documents, jailbreaks
from perimetry.suites.matching import CUT, TOLERANCE
from perimetry.suites.role_play import ROLE_PLAYS
from suites.samples import documents, length, prose

ATTACKS = [
    *[Document(f"dan{i}", prose(100 + i, 20 + 9 * i), {"family": "dan"}) for i in range(12)],
    *[Document(f"tap{i}", prose(300 + i, 30 + 5 * i), {"family": "tap"}) for i in range(4)],
    Document("long", prose(500, 900), {"family": "tap"}),
    Document("copy", prose(100, 20) + " again", {"family": "dan"}),
    Document("tiny", "do it", {"family": "dan"}),
]
CLEAN = documents("wiki", 10, 500)
BENIGN = [*documents("review", 40, 45), *documents("story", 30, 300)]


def build(n: int = 100):
    return jailbreaks(ATTACKS, CLEAN, BENIGN, length=length, limit=220, n=n, seed=1)


def test_negatives_have_the_length_of_their_attack() -> None:
    suite = build()
    attacks = {c.pair: c for c in suite.cases if c.shifted}
    negatives = [c for c in suite.cases if not c.shifted]
    assert {c.family for c in negatives} == {"passage", "prompt", "role_play"}
    for negative in negatives:
        target = length(attacks[negative.pair].text)
        assert (1 - TOLERANCE) * target <= length(negative.text) <= (1 + TOLERANCE) * target
    for row in suite.matching["lengths"]:
        assert row["n_clean"] == sum(c.family == row["negatives"] for c in negatives)
        assert row["n_clean"] + row["unmatched"] == len(attacks)
        assert abs(row["tokens_shifted"] - row["tokens_clean"]) < TOLERANCE * row["tokens_shifted"]
        assert row["ks_tokens"] <= 0.15
    assert suite.matching["lengths"][0]["unmatched"] == 0


def test_what_was_cut_or_left_out_is_said() -> None:
    suite = build()
    cut = [c for c in suite.cases if c.id.endswith(CUT)]
    assert [c.pair for c in cut] == ["long"]
    assert length(cut[0].text) <= 220
    assert prose(500, 900).startswith(cut[0].text)
    assert suite.matching["cut_to_limit"] == 1
    assert suite.matching["near_copies_left_out"] == 1
    assert suite.matching["families"] == {"dan": 12, "tap": 5}
    assert {c.pair for c in suite.cases}.isdisjoint({"copy", "tiny"})


def test_families_are_drawn_evenly() -> None:
    families = Counter(c.family for c in build(8).cases if c.shifted)
    assert families == {"dan": 4, "tap": 4}


def test_benign_prompts_are_used_once_and_role_plays_keep_their_form() -> None:
    suite = build()
    prompts = [c.text for c in suite.cases if c.family == "prompt"]
    sources = [d.text for d in BENIGN]
    assert all(any(source.startswith(text) for source in sources) for text in prompts)
    assert len(set(prompts)) == len(prompts)
    openings = tuple(plain.split("{text}")[0] for plain in ROLE_PLAYS)
    plays = [c.text for c in suite.cases if c.family == "role_play"]
    assert plays
    assert all(text.startswith(openings) for text in plays)
    assert len({next(o for o in openings if text.startswith(o)) for text in plays}) > 2


def test_only_benign_data_sets_serve_as_prompts() -> None:
    named = [Document(name, "x", {"dataset": name}) for name in ("106_hate_hate", "111_yelp_data")]
    plain = Document("own", "x", {})
    assert benign_documents([*named, plain]) == [named[1], plain]


def test_without_a_negative_there_is_no_suite() -> None:
    with pytest.raises(TooFewSamples, match="17 shifted and 0 clean cases"):
        jailbreaks(ATTACKS, [], [], length=length, limit=220, n=100, seed=1)
