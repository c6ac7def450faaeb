"""Encodings: each can be undone, and the plain negatives have as many tokens."""

import base64
import codecs
from collections import Counter

import pytest

from perimetry.suites.encodings import ENCODINGS, MORSE, encodings
from perimetry.suites.matching import CUT, TOLERANCE
from suites.samples import documents, length

ATTACKS = documents("goal", 20, 12)
BENIGN = [*documents("benign", 40, 25), *documents("story", 30, 120)]
CLEAN = documents("wiki", 10, 500)
UNDO = {
    "base64": lambda code: base64.b64decode(code).decode(),
    "hex": lambda code: bytes.fromhex(code).decode(),
    "rot13": lambda code: codecs.decode(code, "rot13"),
    "leetspeak": lambda code: code.translate(str.maketrans("431057", "aeiost")),
    "morse": lambda code: " ".join(
        "".join({v: k for k, v in MORSE.items()}[letter] for letter in word.split()) for word in code.split(" / ")
    ),
}


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_an_encoding_can_be_undone(name: str) -> None:
    assert UNDO[name](ENCODINGS[name](BENIGN[0].text)) == BENIGN[0].text


def test_known_codes() -> None:
    assert {name: encode("So 1") for name, encode in ENCODINGS.items()} == {
        "base64": "U28gMQ==",
        "hex": "536f2031",
        "leetspeak": "50 1",
        "morse": "... --- / .----",
        "rot13": "Fb 1",
    }
    assert ENCODINGS["morse"]("é, a!") == ".-"


def test_codes_come_from_the_sources_and_fit_the_limit() -> None:
    suite = encodings(ATTACKS, BENIGN, CLEAN, length=length, limit=60, n=40, seed=1)
    shifted = [c for c in suite.cases if c.shifted]
    assert Counter(c.family for c in shifted) == {f"{n}/{k}": 4 for n in ENCODINGS for k in ("attack", "benign")}
    for case in shifted:
        name, kind = case.family.split("/")
        plain = UNDO[name](case.text)
        assert length(case.text) <= 60
        sources = [d.text for d in (ATTACKS if kind == "attack" else BENIGN)]
        assert any(source == plain if not case.id.endswith(CUT) else source.startswith(plain) for source in sources)
    assert 0 < suite.matching["cut_to_limit"] < 40


def test_negatives_are_plain_of_the_same_length_and_not_what_was_encoded() -> None:
    suite = encodings(ATTACKS, BENIGN, CLEAN, length=length, limit=60, n=40, seed=1)
    targets = {c.pair: length(c.text) for c in suite.cases if c.shifted}
    negatives = [c for c in suite.cases if not c.shifted]
    assert {c.family for c in negatives} == {"prompt", "passage"}
    spent = {c.pair.partition("/")[2] for c in suite.cases if c.family.endswith("/benign")}
    free = [d.text for d in BENIGN if d.id not in spent]
    for case in negatives:
        assert abs(length(case.text) - targets[case.pair]) <= TOLERANCE * targets[case.pair]
        if case.family == "prompt":
            assert any(text.startswith(case.text) for text in free)
