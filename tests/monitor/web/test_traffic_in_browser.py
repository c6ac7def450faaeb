"""The traffic view in a real browser: live events, a restart of the service, and memory."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tests.monitor.web.browser import Seen, opened
from tests.monitor.web.stage import event, staged

pytestmark = pytest.mark.web

IDS = "rows => rows.map(row => Number(row.dataset.id))"


def ids(page: Page) -> list[int]:
    """Ids in the live list, oldest first."""
    found: list[int] = page.eval_on_selector_all("#tail tbody tr[data-id]", IDS)
    return found[::-1]


def until(page: Page, number: int) -> None:
    """Until an event is shown."""
    page.wait_for_selector(f"#tail tr[data-id='{number}']", state="attached")


def test_events_come_live_and_numbers_agree(seen: Seen, stage: Any) -> None:
    stage.put(*(event(k, p_value=p) for k, p in enumerate((0.5, 0.005, 0.93, 0.001))))
    page = seen.go("/traffic")
    seen.until_live()
    assert ids(page) == [1, 2, 3, 4]
    assert page.inner_text("#total") == "4"
    counts = page.eval_on_selector_all("#bins tr", "rows => rows.map(r => Number(r.cells[2].textContent))")
    assert [(k, n) for k, n in enumerate(counts) if n] == [(0, 2), (9, 1), (18, 1)]
    assert page.locator("#histogram canvas").count() == 1
    stage.put(event(5, p_value=0.2, group="<b>long</b>"))
    until(page, 5)
    cells = page.eval_on_selector_all("#tail tbody tr:first-child td", "cells => cells.map(c => c.textContent)")
    assert cells[1:] == ["5", "<b>long</b>", "score", "3", "1", "0.2", "inside"]
    assert page.evaluate("bins[3]") == 1
    seen.assert_clean()


def test_the_list_can_be_held_and_let_go(seen: Seen, stage: Any) -> None:
    page = seen.go("/traffic")
    seen.until_live()
    page.click("#pause")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    stage.put(event(1), event(2))
    seen.until("last === 2")
    assert ids(page) == []
    page.click("#pause")
    until(page, 2)
    assert ids(page) == [1, 2]


def test_after_a_restart_nothing_is_missing_and_nothing_comes_twice(seen: Seen, stage: Any) -> None:
    page = seen.go("/traffic")
    seen.until_live()
    stage.put(event(1), event(2), event(3))
    until(page, 3)
    asked = len(seen.requests)
    stage.stop()
    seen.until("document.getElementById('said').textContent.includes('lost')")
    stage.put(*(event(k) for k in range(4, 9)))
    stage.start()
    until(page, 8)
    stage.put(event(9))
    until(page, 9)
    assert ids(page) == list(range(1, 10))
    assert "Connected again" in page.inner_text("#said")
    again = [one for one in seen.requests[asked:] if "/v1/events" in one.url]
    assert again
    assert all(one.all_headers().get("last-event-id") == "3" or "since=3" in one.url for one in again[-1:])
    seen.assert_clean("ERR_")


def test_what_was_missed_is_shown(chrome: Browser) -> None:
    with staged(buffer=3) as stage, opened(chrome, stage.origin) as seen:
        page = seen.go("/traffic")
        seen.until_live()
        # All at once: the listener cannot read any of them before the last has come.
        stage.put(*(event(k) for k in range(1, 11)))
        until(page, 10)
        assert ids(page) == [8, 9, 10]
        assert "7 events were left out" in page.inner_text("#tail tr.gap")
        assert "7 events were missed" in page.inner_text("#said")


def body(first: int, last: int) -> bytes:
    """Frames of the live stream."""
    plain = {"ts": "2026-01-31T12:00:00+00:00", "n_tokens": 9, "score": 1.25, "p_value": 0.5, "flagged": False}
    rest = json.dumps(plain | {"group": "short", "adapter": "score"})[1:]
    return "".join(f'id: {k}\ndata: {{"id": {k}, {rest}\n\n' for k in range(first, last + 1)).encode()


@contextmanager
def flood(bodies: list[bytes]) -> Iterator[str]:
    """The address of something that says a lot at once: each body to one who asks, then nothing."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(bodies.pop(0) if bodies else b": no more\n\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def test_many_events_do_not_pile_up(seen: Seen, stage: Any) -> None:
    """100,000 events: less than 20 MB more."""
    page = seen.page
    with flood([body(1, 1000), body(1001, 101_000)]) as address:
        page.route("**/v1/events*", lambda route: route.continue_(url=address))
        seen.go("/traffic")
        seen.until("last === 1000")
        session = page.context.new_cdp_session(page)

        def heap() -> int:
            session.send("HeapProfiler.collectGarbage")
            used: int = session.send("Runtime.getHeapUsage")["usedSize"]
            return used

        before = heap()
        page.evaluate("() => { source.close(); follow(); }")
        seen.until("last === 101000", 60.0)
        seen.until("!due")
        grown = heap() - before
    print(f"100,000 events: {grown / 2**20:.1f} MiB more")
    assert grown < 20 * 10**6
    assert page.locator("#tail tbody tr").count() == 50
