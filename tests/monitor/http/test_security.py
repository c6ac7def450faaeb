"""Who may reach what."""

from pathlib import Path

import httpx
import pytest
from tests.monitor.http.desk import Desk, assert_problem

from perimetry.errors import ConfigError, MissingFile
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.rates import Rates
from perimetry.monitor.http.security import COOKIE
from perimetry.monitor.http.tokens import Key, Sessions, new_token, read_tokens
from perimetry.monitor.problems import Problem

SCORER, READER, SCRAPER, ALL = (new_token() for _ in range(4))


@pytest.fixture
def guarded(tmp_path: Path) -> Desk:
    """A service with four tokens: one is written out, the others are hashes."""
    path = tmp_path / "tokens"
    lines = ["# who may", "", f"gateway score {SCORER[0]}", f"grafana read {READER[1]}"]
    path.write_text("\n".join([*lines, f"prometheus metrics {SCRAPER[1]}", f"me score,read,metrics {ALL[1]}"]))
    return Desk(HttpConfig(tokens=path))


def bearer(token: tuple[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {token[0]}"}


ADDRESSES = [
    ("POST", "/v1/score", SCORER),
    ("POST", "/v1/score/stream", SCORER),
    ("POST", "/api/v1/text/contents", SCORER),
    ("POST", "/api/v1/text/chat", SCORER),
    ("POST", "/beta/litellm_basic_guardrail_api", SCORER),
    ("GET", "/v1/events", READER),
    ("GET", "/v1/drift", READER),
    ("POST", "/v1/drift/acknowledge", READER),
    ("GET", "/metrics", SCRAPER),
]


@pytest.mark.parametrize(("method", "path", "token"), ADDRESSES, ids=[path for _, path, _ in ADDRESSES])
def test_no_a_wrong_and_an_under_scoped_token(guarded: Desk, method: str, path: str, token: tuple[str, str]) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        none = await client.request(method, path)
        assert_problem(none, "unauthorized", 401)
        assert none.headers["www-authenticate"] == "Bearer"
        assert_problem(await client.request(method, path, headers=bearer(("x" * 43, ""))), "unauthorized", 401)
        assert_problem(
            await client.request(method, path, headers={"authorization": f"Basic {token[0]}"}), "unauthorized", 401
        )
        for other in (SCORER, READER, SCRAPER):
            if other is not token:
                assert_problem(await client.request(method, path, headers=bearer(other)), "forbidden", 403)
        for headers in (bearer(token), {"x-api-key": token[0]}, bearer(ALL)):
            assert (await client.request(method, path, headers=headers)).status_code not in (401, 403)

    guarded.ask(use)


def test_what_any_token_may_and_what_needs_none(guarded: Desk) -> None:
    for path in ("/healthz", "/health", "/readyz"):
        assert guarded.get(path).status_code == 200
    for path in ("/v1/capabilities", "/openapi.json"):
        assert_problem(guarded.get(path), "unauthorized", 401)
        assert guarded.get(path, headers=bearer(SCRAPER)).status_code == 200
    assert_problem(guarded.get("/nothing"), "unauthorized", 401)


def test_a_refusal_comes_before_the_body_is_read(guarded: Desk) -> None:
    """A small body is thrown away, so that the connection can be used again; a large one is not worth it."""
    for size, closes in ((100, False), (100_000, True)):
        answer = guarded.post("/v1/score", content=b"x" * size, headers={"content-type": "text/plain"})
        assert_problem(answer, "unauthorized", 401)
        assert (answer.headers.get("connection") == "close") == closes


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::2]:8765"])
def test_another_host_name_is_misdirected(host: str) -> None:
    assert_problem(Desk().get("/healthz", headers={"host": host}), "misdirected", 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:1", "[::1]:8765"])
def test_own_host_names(host: str) -> None:
    assert Desk().get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
    ids=str,
)
def test_pages_of_others_are_refused(headers: dict[str, str]) -> None:
    assert_problem(Desk().get("/v1/capabilities", headers=headers), "forbidden", 403)
    assert_problem(Desk().post("/v1/score", json={"input": "a"}, headers=headers), "forbidden", 403)


def test_own_pages_and_links_are_answered() -> None:
    desk = Desk()
    own = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert desk.post("/v1/score", json={"input": "a"}, headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert desk.get("/v1/capabilities", headers=link).status_code == 200
    assert_problem(desk.post("/v1/score", json={"input": "a"}, headers=link), "forbidden", 403)


def test_a_browser_shows_its_token_once_and_its_forms_carry_a_secret(guarded: Desk) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        assert_problem(await client.post("/session", data={"token": "wrong"}), "unauthorized", 401)
        begun = await client.post("/session", data={"token": ALL[0]})
        assert (begun.status_code, begun.headers["location"]) == (303, "/")
        cookie = begun.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Max-Age=43200"} <= set(cookie.split("; "))
        assert ALL[0] not in cookie
        assert (await client.get("/v1/events")).status_code == 200
        assert_problem(await client.post("/v1/score", json={"input": "a"}), "forbidden", 403)
        wrong = {"x-csrf-token": "0" * 64}
        assert_problem(await client.post("/v1/score", json={"input": "a"}, headers=wrong), "forbidden", 403)
        session = guarded.app.state.service.sessions.find(client.cookies[COOKIE])
        right = {"x-csrf-token": session.csrf}
        assert (await client.post("/v1/score", json={"input": "a"}, headers=right)).status_code == 200
        assert_problem(await client.post("/session/end", data={"csrf": "x"}), "forbidden", 403)
        assert (await client.post("/session/end", data={"csrf": session.csrf})).status_code == 303
        assert_problem(
            await client.get("/v1/events", headers={"cookie": cookie.partition(";")[0]}), "unauthorized", 401
        )

    guarded.ask(use)


def test_cookies_are_secure_behind_https(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"me read {ALL[1]}")
    desk = Desk(HttpConfig(tokens=path, https=True, hosts=("*",), host="0.0.0.0"))
    answer = desk.post("/session", data={"token": ALL[0]}, headers={"host": "any.example"})
    assert "Secure" in answer.headers["set-cookie"]


def test_sessions_end_and_are_few() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0], seconds=10.0, most=2)
    key = Key("me", frozenset({"read"}))
    (first, _), (second, _), (third, session) = (sessions.open(key) for _ in range(3))
    assert sessions.find(first) is None
    assert sessions.find(second) is not None
    assert sessions.find(third) == session
    now[0] = 10.0
    assert sessions.find(third) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("one two", "line 1: 2 words"),
        ("na/me score " + "x" * 43, "the name has other letters"),
        ("me all " + "x" * 43, "unknown scope"),
        ("me score short-secret", "the token has 12 letters; at least 43"),
        ("me score sha256:beef", "not 64 hexadecimal digits"),
        ("", "holds no token"),
        (f"me score {'x' * 43}\nme read {'y' * 43}", "the same name twice"),
    ],
)
def test_a_file_of_tokens_that_is_none_says_why_and_shows_no_secret(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(line)
    with pytest.raises(ConfigError, match=says) as raised:
        read_tokens(path)
    assert "secret" not in str(raised.value)
    assert "xxx" not in str(raised.value)
    with pytest.raises(MissingFile):
        read_tokens(tmp_path / "none")


def test_rates_are_kept_by_key() -> None:
    rates = Rates(10.0, 2, most_keys=2)
    for _ in range(2):
        rates.take("a", 0.0)
    with pytest.raises(Problem) as refused:
        rates.take("a", 0.0)
    assert refused.value.kind == "rate-limited"
    assert refused.value.retry_after_s == 1
    rates.take("b", 0.0)
    rates.take("a", 0.11)
    slow = Rates(0.1, 1)
    slow.take("a", 0.0)
    with pytest.raises(Problem) as refused:
        slow.take("a", 1.0)
    assert refused.value.retry_after_s == 9


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"a score {SCORER[1]}\nb score {ALL[1]}")
    desk = Desk(HttpConfig(tokens=path), rate_per_s=0.01, burst=2)

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        asked = [await client.post("/v1/score", json={"input": "a"}, headers=bearer(SCORER)) for _ in range(3)]
        return [
            *asked,
            await client.post("/v1/score", json={"input": "a"}, headers=bearer(ALL)),
            await client.get("/healthz"),
        ]

    *answered, refused, other, probe = desk.ask(use)
    assert [one.status_code for one in (*answered, other, probe)] == [200] * 4
    assert_problem(refused, "rate-limited", 429)
    assert int(refused.headers["retry-after"]) > 1
