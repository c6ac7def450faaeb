"""A user's own suite."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import MalformedLine, MissingFile, TooFewSamples
from perimetry.suites.base import Case, Suite
from perimetry.suites.jsonl import read_suite, write_suite

NAME = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
CASES = st.lists(
    st.builds(Case, NAME, NAME.filter(str.strip), NAME, NAME, st.floats(0, 1), st.booleans()),
    min_size=2,
    unique_by=lambda case: case.id,
).filter(lambda cases: len({case.shifted for case in cases}) == 2)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, cases: list[Case]) -> None:
    path = tmp_path_factory.mktemp("suite") / "own.jsonl"
    write_suite(path, Suite("own", "Mine.", tuple(cases), {}))
    assert read_suite(path).cases == tuple(cases)
    assert read_suite(path).name == "own"


def test_absent_fields_get_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "a", "text": "x", "shifted": true}\n\n{"id": "b", "text": "y", "shifted": false}\n')
    assert read_suite(path).cases == (
        Case("a", "x", "a", "shifted", 1.0, True),
        Case("b", "y", "b", "clean", 0.0, False),
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", r"line 2: not JSON"),
        ("[]", r"line 2: a list came, not an object"),
        ({"text": "x", "shifted": True}, r"line 2: 'id' is None, not a str"),
        ({"id": "b", "text": "x", "shifted": 1}, r"line 2: 'shifted' is 1, not a bool"),
        ({"id": "b", "text": " ", "shifted": True}, r"line 2: 'text' is empty"),
        ({"id": "b", "text": "x", "shifted": True, "dose": 2}, r"line 2: 'dose' is 2, not a share"),
        ({"id": "b", "text": "x", "shifted": True, "dose": True}, r"line 2: 'dose' is True"),
        ({"id": "b", "text": "x", "shifted": True, "pair": 3}, r"line 2: 'pair' and 'family' must be strings"),
        ({"id": "b", "text": "x", "shifted": True, "famly": "f"}, r"line 2: unknown field 'famly', known are dose"),
        ({"id": "a", "text": "x", "shifted": True}, r"line 2: the id 'a' was used before"),
        ('{"id": "b", "text": "\\ud800", "shifted": true}', r"line 2: 'text' holds half of a surrogate pair"),
        ('{"id": "b", "text": "x", "shifted": true, "dose": NaN}', r"line 2: 'dose' is nan"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, why: str) -> None:
    path = tmp_path / "own.jsonl"
    first = json.dumps({"id": "a", "text": "x", "shifted": False})
    path.write_text(f"{first}\n{line if isinstance(line, str) else json.dumps(line)}\n")
    with pytest.raises(MalformedLine, match=why):
        read_suite(path)


def test_no_file_and_one_kind_only(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no suite"):
        read_suite(tmp_path / "none.jsonl")
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "a", "text": "x", "shifted": true}\n')
    with pytest.raises(TooFewSamples, match="1 shifted and 0 clean"):
        read_suite(path)
