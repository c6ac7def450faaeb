"""The detector API, by the published schema and by what a client of it reads."""

from typing import Any

import pytest
from tests.monitor.fakes import ARTIFACT, N
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.monitor.engine import TokenScored
from perimetry.monitor.http.adapters.detector import hottest_runs
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.problems import Problem

ID = {"detector-id": "perimetry"}
CONTENTS, CHAT = "/api/v1/text/contents", "/api/v1/text/chat"
REQUIRED = {"start": int, "end": int, "text": str, "detection": str, "detection_type": str, "score": float}
"""Members of a detection in the published schema, with their types."""


def assert_detection(found: dict[str, Any], text: str) -> None:
    for name, kind in REQUIRED.items():
        assert isinstance(found[name], kind), name
    assert found["text"] == text[found["start"] : found["end"]]
    assert 0 <= found["score"] <= 1
    assert "evidence" not in found
    assert "evidences" not in found


def test_each_content_has_a_list_and_a_flagged_one_its_hottest_runs() -> None:
    desk = Desk()
    text = "some odd odder words 𝒶nd an odd end"
    answer = desk.post(CONTENTS, json={"contents": ["calm words", text], "detector_params": {}}, headers=ID)
    calm, odd = answer.json()
    assert answer.status_code == 200
    assert calm == []
    assert [run["text"] for run in odd] == ["odd odder", "odd"]
    for run in odd:
        assert_detection(run, text)
        assert (run["detection"], run["detection_type"]) == ("outside_understanding", "perimetry")
        assert run["score"] == 1 - 1 / (N + 1)
        assert run["metadata"] == {
            "p_value": 1 / (N + 1),
            "group": "short",
            "heat": 9.0,
            "artifact": ARTIFACT["calibration_sha256"],
        }
    assert [event.adapter for event in desk.sink.put_events] == ["detector", "detector"]


def test_a_flagged_text_without_a_hot_token_is_one_run() -> None:
    desk = Desk()
    desk.engine.change = lambda found: found._replace(tokens=())
    ((run,),) = desk.post(CONTENTS, json={"contents": ["an odd text"]}, headers=ID).json()
    assert run["text"] == "an odd text"


def test_a_rate_may_be_given_and_what_is_not_known_is_ignored() -> None:
    desk = Desk()
    asked = {"contents": ["calm"], "detector_params": {"alpha": 0.5, "threshold": 0.1}, "more": 1}
    assert len(desk.post(CONTENTS, json=asked, headers=ID).json()[0]) == 1


def test_a_chat_has_one_detection_or_none() -> None:
    desk = Desk()
    calm, odd = ([{"role": "user", "content": text}] for text in ("calm", "odd"))
    assert desk.post(CHAT, json={"messages": calm, "tools": []}).json() == []
    (found,) = desk.post(CHAT, json={"messages": odd}, headers=ID).json()
    assert found["score"] == 1 - 1 / (N + 1)
    assert found.keys() == {"detection", "detection_type", "score", "metadata"}


@pytest.mark.parametrize("headers", [{}, {"detector-id": "another"}], ids=str)
def test_another_detector_is_refused_with_a_code(headers: dict[str, str]) -> None:
    found = assert_problem(Desk().post(CONTENTS, json={"contents": ["a"]}, headers=headers), "unknown-detector", 404)
    assert found["code"] == 404
    assert found["message"]


def test_another_detector_is_refused_for_chats_too() -> None:
    asked = {"messages": [{"role": "user", "content": "a"}]}
    assert_problem(Desk().post(CHAT, json=asked, headers={"detector-id": "x"}), "unknown-detector", 404)


@pytest.mark.parametrize(
    "asked", [{"contents": []}, {"contents": ["a"] * 33}, {"contents": [""]}, {}], ids=lambda a: str(a)[:20]
)
def test_what_is_no_list_of_texts_is_invalid(asked: dict[str, Any]) -> None:
    assert assert_problem(Desk().post(CONTENTS, json=asked, headers=ID), "invalid", 422)["code"] == 422


@pytest.mark.parametrize("mode", ["alert", "block"])
def test_a_fault_is_an_error_in_every_mode_and_never_an_empty_list(mode: str) -> None:
    desk = Desk(HttpConfig.model_validate({"mode": mode}))

    async def refuse() -> None:
        raise Problem("restarting")

    desk.engine.before = refuse
    for path, asked in ((CONTENTS, {"contents": ["a"]}), (CHAT, {"messages": [{"role": "user", "content": "a"}]})):
        assert assert_problem(desk.post(path, json=asked, headers=ID), "restarting", 503)["code"] == 503


def test_an_api_that_is_off_is_not_there() -> None:
    assert_problem(
        Desk(HttpConfig(detector_id=None)).post(CONTENTS, json={"contents": ["a"]}, headers=ID), "not-found", 404
    )


def test_runs_are_few_and_end_at_cold_tokens() -> None:
    def token(i: int, score: float | None) -> TokenScored:
        return TokenScored(2 * i, 2 * i + 1, "x", score is None, score)

    scores = [9.0, None, 9.0, 0.0, 8.0, 0.0, 7.0, 0.0, 10.0]
    runs = hottest_runs([token(i, score) for i, score in enumerate(scores)])
    assert [run.heat for run in runs] == [10.0, 9.0, 9.0]
    assert [(run.start, run.end) for run in runs] == [(16, 17), (0, 1), (4, 5)]
    assert hottest_runs([token(0, None)]) == []
