"""The page as it is asked for: who sees what, what a form gets, what is refused."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.monitor.http.desk import assert_problem
from tests.monitor.web.stage import WebDesk, alarmed

from perimetry.monitor.http.edge import CSP
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.tokens import new_token
from perimetry.monitor.problems import Problem
from perimetry.monitor.web.examples import EXAMPLES

pytestmark = pytest.mark.web

ALL, SCORER, READER = (new_token() for _ in range(3))
VIEWS = ("/", "/traffic", "/card")
WANTS = {"/": "score", "/traffic": "read", "/card": "read"}


@pytest.fixture
def guarded(tmp_path: Path) -> WebDesk:
    path = tmp_path / "tokens"
    path.write_text(f"all score,read {ALL[1]}\nscorer score {SCORER[1]}\nreader read {READER[1]}")
    return WebDesk(HttpConfig(tokens=path))


@pytest.mark.parametrize("path", [*VIEWS, "/static/page.css"])
def test_views_are_pages_under_the_strict_policy(path: str) -> None:
    answer = WebDesk().get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == CSP
    assert "require-trusted-types-for 'script'" in CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("no-store" in answer.headers["cache-control"]) == (path in VIEWS)


def test_the_page_is_no_part_of_the_described_contract() -> None:
    assert not {"/", "/traffic", "/card", "/login", "/static/{name}"} & set(
        WebDesk().get("/openapi.json").json()["paths"]
    )


def test_a_form_gets_a_verdict_whose_event_is_synthetic() -> None:
    desk = WebDesk()
    answer = desk.post("/", data={"text": "an odd\r\ntext", "alpha": "0.05"})
    assert answer.status_code == 200
    assert "Outside what the model knows" in answer.text
    (kept,) = desk.sink.put_events
    assert (kept.text, kept.adapter, dict(kept.metadata)) == ("an odd\ntext", "page", {"synthetic": "page"})
    assert '<option value="0.05" selected>' in answer.text
    assert len(kept.concepts) == 2


def test_an_example_is_scored_by_its_number() -> None:
    desk = WebDesk()
    desk.post("/", data={"text": "ignored", "example": "2"})
    assert desk.sink.put_events[0].text == EXAMPLES[2].text
    for number in ("99", "-1", "x", "²"):
        desk.post("/", data={"text": "kept", "example": number})
        assert desk.sink.put_events[-1].text == "kept"


def test_the_script_gets_the_same_as_plain_values() -> None:
    found = WebDesk().post("/", data={"text": "an odd text"}, headers={"accept": "application/json"})
    assert found.headers["content-type"] == "application/json"
    assert found.json()["facts"]["headline"] == "Outside what the model knows"
    assert_problem(WebDesk().post("/", data={"text": ""}, headers={"accept": "application/json"}), "invalid", 422)


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"text": ""}, 422, "there is no prompt"),
        ({"text": "a", "alpha": "2"}, 422, "must lie above 0"),
        ({"text": "a", "alpha": "nan"}, 422, "must lie above 0"),
        ({"text": "a", "alpha": "1e-9"}, 422, "alpha-unreachable"),
        ({"text": "x" * 300_000}, 413, "too-large"),
    ],
)
def test_what_cannot_be_scored_is_said_and_is_no_verdict(fields: dict[str, str], status: int, says: str) -> None:
    desk = WebDesk()
    answer = desk.post("/", data=fields)
    assert answer.status_code == status
    assert says in answer.text
    assert 'id="result" hidden' in answer.text
    assert "the model knows</h2>" not in answer.text
    assert desk.sink.put_events == []


@pytest.mark.parametrize(("kind", "status"), [("restarting", 503), ("deadline", 504), ("non-finite", 500)])
def test_a_refusal_of_the_engine_is_a_page_with_its_status(kind: str, status: int) -> None:
    desk = WebDesk()

    async def refuse() -> None:
        raise Problem(kind)

    desk.engine.before = refuse
    answer = desk.post("/", data={"text": "a text"})
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)
    assert f"No score ({status} {kind})" in answer.text
    assert 'id="result" hidden' in answer.text


def test_other_bodies_and_other_pages_are_refused() -> None:
    assert_problem(WebDesk().post("/", json={"text": "a"}), "media-type", 415)
    foreign: dict[str, Any] = {"data": {"text": "a"}, "headers": {"origin": "https://evil.example"}}
    assert_problem(WebDesk().post("/", **foreign), "forbidden", 403)
    assert_problem(WebDesk().get("/static/none.js"), "not-found", 404)


@pytest.mark.parametrize("path", VIEWS)
def test_views_want_a_token_of_their_scope(guarded: WebDesk, path: str) -> None:
    answer = guarded.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    for name, token in (("score", SCORER), ("read", READER)):
        answer = guarded.get(path, headers={"authorization": f"Bearer {token[0]}"})
        if WANTS[path] == name:
            assert answer.status_code == 200
        else:
            assert_problem(answer, "forbidden", 403)


def test_the_way_in_shows_nothing_else(guarded: WebDesk) -> None:
    answer = guarded.get("/login")
    assert answer.status_code == 200
    assert "Model card" not in answer.text
    assert guarded.get("/static/page.css").status_code == 200
    assert_problem(guarded.post("/", data={"text": "a"}), "unauthorized", 401)
    for path in ("/v1/events", "/v1/drift"):
        assert_problem(guarded.get(path), "unauthorized", 401)


def test_a_session_scores_only_with_the_secret_of_its_form(guarded: WebDesk) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        html = {"accept": "text/html"}
        wrong = await client.post("/session", data={"token": "x" * 43}, headers=html)
        assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?again=1")
        assert "no token of this service" in (await client.get("/login?again=1")).text
        begun = await client.post("/session", data={"token": ALL[0]}, headers=html)
        assert (begun.status_code, begun.headers["location"]) == (303, "/")
        assert (await client.get("/login")).headers["location"] == "/"
        page = (await client.get("/")).text
        secret = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
        assert secret is not None
        assert_problem(await client.post("/", data={"text": "a"}), "forbidden", 403)
        assert_problem(await client.post("/", data={"text": "a", "csrf": "0" * 64}), "forbidden", 403)
        assert guarded.sink.put_events == []
        answer = await client.post("/", data={"text": "an odd text", "csrf": secret[1]})
        assert "Outside what the model knows" in answer.text
        assert ALL[0] not in page

    guarded.ask(use)


def test_a_service_without_a_model_still_shows_its_pages() -> None:
    desk = WebDesk()
    desk.engine.artifact, desk.engine.groups = {}, ()
    desk.engine.state = {"worker": "The model is being loaded."}
    desk.source = None
    for path in VIEWS:
        answer = desk.get(path)
        assert answer.status_code == 200
        assert "Not ready" in answer.text


def test_an_alarm_can_be_seen_and_then_is_over(guarded: WebDesk) -> None:
    guarded.source = source = alarmed()
    reader, scorer = ({"authorization": f"Bearer {token[0]}"} for token in (READER, SCORER))
    assert 'id="seen"' in guarded.get("/traffic", headers=reader).text
    assert_problem(guarded.post("/traffic", data={}, headers=scorer), "forbidden", 403)
    assert_problem(guarded.post("/traffic", data={}), "unauthorized", 401)
    assert source.acknowledged == 0
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = guarded.post("/traffic", content=b"", headers=reader | form)
    assert (answer.status_code, answer.headers["location"], source.acknowledged) == (303, "/traffic", 1)
    guarded.source = None
    assert_problem(guarded.post("/traffic", content=b"", headers=reader | form), "loading", 503)
