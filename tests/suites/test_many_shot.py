"""Dialogues: whole exchanges in the form of a chat, as long on both sides."""

import pytest

from perimetry.errors import TooFewSamples
from perimetry.suites.many_shot import dialogue, many_shot
from perimetry.suites.matching import TOLERANCE
from suites.samples import documents, length, prose

HARMFUL = [(prose(i, 6) + "?", prose(900 + i, 30)) for i in range(30)]
HARMLESS = [(prose(200 + i, 8) + "?", prose(700 + i, 3)) for i in range(30)]
CLEAN = documents("wiki", 10, 500)


def words(text: str) -> int:
    return len(text.split())


def test_a_dialogue_holds_whole_exchanges_and_then_a_question() -> None:
    text = dialogue([("what is it", "a b c d e f g h"), ("who", "x"), ("why so late", "y")], 17, words)
    assert text == "User: what is it\nAssistant: a b c d e f\nUser: who\nAssistant: x\nUser: why"
    assert dialogue([("one two three", "a")], 2, words) == "User: one"
    assert dialogue([("one", "a")], 50, words) == "User: one\nAssistant: a"


def test_both_sides_are_dialogues_of_the_same_length() -> None:
    suite = many_shot(HARMFUL, HARMLESS, CLEAN, length=length, limit=120, n=20, seed=4)
    attacks = {c.pair: c.text for c in suite.cases if c.shifted}
    assert len(attacks) == 20
    assert suite.matching["tried_in_vain"] == max(map(int, attacks)) + 1 - 20
    for case in suite.cases:
        target = length(attacks[case.pair])
        assert abs(length(case.text) - target) <= TOLERANCE * target
        assert case.text.startswith("User: ") == (case.family != "passage")
        questions = [line.removeprefix("User: ") for line in case.text.splitlines() if line.startswith("User: ")]
        source = HARMFUL if case.shifted else HARMLESS
        assert all(q in {user for user, _ in source} for q in questions[:-1])
    shots = [text.count("User: ") for text in attacks.values()]
    assert min(shots) >= 3
    assert suite.matching["shots"] == pytest.approx(sum(shots) / len(shots))
    assert suite.cases == many_shot(HARMFUL, HARMLESS, CLEAN, length=length, limit=120, n=20, seed=4).cases


def test_no_room_for_several_exchanges_is_no_suite() -> None:
    with pytest.raises(TooFewSamples, match="'many_shot' has 0 shifted"):
        many_shot(HARMFUL, HARMLESS, CLEAN, length=length, limit=20, n=5, seed=0)
