"""Events are told apart, checked, and come back from their line as they went."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.store.makers import NOON, an_event, uuid_at

from perimetry.monitor.store.events import ConceptSeen, event_of_json, fault_of, json_of_event
from perimetry.monitor.store.fragments import _lines


def test_names_of_events_are_of_version_7_and_ascend_with_time() -> None:
    names = [uuid_at(NOON + 1_000 * i) for i in range(1_000)]
    assert names == sorted(set(names))
    assert {name[14] for name in names} == {"7"}
    assert {name[19] for name in names} <= set("89ab")
    assert len({uuid_at(NOON) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({}, None),
        ({"score": None, "p_value": None}, None),
        ({"uuid": "x"}, "uuid"),
        ({"prompt_hmac": bytes(15)}, "prompt_hmac"),
        ({"score": math.nan}, "score"),
        ({"score": math.inf}, "score"),
        ({"p_value": 0.0}, "p_value"),
        ({"p_value": 1.5}, "p_value"),
        ({"p_value": math.nan}, "p_value"),
        ({"n_tokens": -1}, "a number"),
        ({"ts_us": 2**63, "uuid": uuid_at(0)}, "a number"),
        ({"concepts": (ConceptSeen(1, math.nan, 1, 1),)}, "concepts"),
        ({"concepts": (ConceptSeen(1, 1.0, 1, 1), ConceptSeen(1, 2.0, 1, 1))}, "concepts"),
        ({"concepts": (ConceptSeen(1, 1.0, 2**63, 1),)}, "a number"),
    ],
)
def test_what_no_database_would_take_is_seen(other: dict[str, Any], fault: str | None) -> None:
    assert fault_of(an_event(1, **other)) == fault


@settings(deadline=None)
@given(
    st.text(),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
    st.none() | st.binary(max_size=16),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_line_gives_the_event_back(
    text: str, metadata: dict[str, str], summary: bytes | None, score: float | None
) -> None:
    event = an_event(7, text=text, metadata=metadata, summary=summary, score=score, redacted=True, expires_us=9)
    line = _lines([event])
    assert line.count(b"\n") == 1
    assert event_of_json(line) == event


def test_a_line_that_is_no_event_is_refused() -> None:
    whole = json_of_event(an_event(1))
    for line in (b"", b"{}", b"[]", b"null", b'{"uuid": 1}', _lines([an_event(1)])[:-20]):
        with pytest.raises((ValueError, TypeError, KeyError)):
            event_of_json(line)
    assert whole["concepts"] == [[5, 2.0, 3, 1], [9, 1.0, 2, 0]]
