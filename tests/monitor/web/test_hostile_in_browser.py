"""Texts that want to become code, through everything that the page shows."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from tests.monitor.fakes import ARTIFACT
from tests.monitor.web.browser import Seen, opened
from tests.monitor.web.payloads import PAYLOADS
from tests.monitor.web.stage import event

from perimetry.monitor.engine import ConceptScored, GroupFacts
from perimetry.monitor.web.escapes import plain

pytestmark = pytest.mark.web

ELEMENTS = "() => [...new Set([...document.querySelectorAll('*')].map(e => e.localName))].sort()"
HANDLERS = "() => [...document.querySelectorAll('*')].filter(e => !e.closest('.uplot')).flatMap(e => [...e.attributes]).filter(a => /^on|^style$|^srcdoc$/i.test(a.name)).length"
LABELS = "els => els.map(e => e.textContent)"
SHOWN = "els => els.map(e => { const c = e.cloneNode(true); for (const x of c.querySelectorAll('.esc')) x.replaceWith(x.dataset.shown); return c.textContent; })"


def elements(page: Page) -> set[str]:
    """Names of all elements; there is no attribute that runs or styles."""
    assert page.evaluate(HANDLERS) == 0
    return set(page.evaluate(ELEMENTS))


@pytest.fixture
def known(seen: Seen) -> set[str]:
    """What the views are made of where nobody means harm."""
    page = seen.go()
    seen.score("an odd\ttext")
    page.locator("#rows summary").click()
    found = elements(page)
    for path in ("/traffic", "/card"):
        found |= elements(seen.go(path))
    return found | {"mark", "p"}


def concepts() -> list[ConceptScored]:
    return [ConceptScored(k, text, 1.0, 1, 1, (text,)) for k, text in enumerate(PAYLOADS)]


def test_there_are_enough_of_them() -> None:
    assert len(set(PAYLOADS)) >= 200


def test_as_prompt(seen: Seen, known: set[str]) -> None:
    page = seen.go()
    for text in PAYLOADS[::6]:
        seen.score(text)
        assert "".join(page.eval_on_selector_all("#heat > span", LABELS)) == text
    whole = "\n".join(PAYLOADS)
    seen.score(whole)
    page.locator("#rows summary").click()
    assert "".join(page.eval_on_selector_all("#heat > span", LABELS)) == whole
    assert "".join(page.eval_on_selector_all("#rows tbody th", LABELS)) == whole
    assert elements(page) <= known
    seen.assert_clean()
    seen.assert_forgets("pwned")


def test_as_label_context_group_and_warning(seen: Seen, stage: Any, known: set[str]) -> None:
    page = seen.go()
    stage.engine.concepts = concepts()
    stage.engine.state = {"worker": " ".join(PAYLOADS)}
    stage.engine.card = {
        "neuronpedia": PAYLOADS[0],
        "written": PAYLOADS[1],
        "tokens": {"mean": PAYLOADS[2], "sd": None},
    }
    for group in PAYLOADS[:: len(PAYLOADS) // 12]:
        stage.engine.change = lambda found, group=group: found._replace(group=group, fallback=True)
        seen.score("an odd text")
        assert page.text_content("[data-f=group]") == f"{plain(group)} (too thin, all prompts used)"
    assert page.eval_on_selector_all("#concepts .label", LABELS) == list(PAYLOADS)
    contexts = page.eval_on_selector_all("#concepts .contexts li", LABELS)
    assert contexts == list(PAYLOADS)
    assert page.locator("#concepts a").count() == 0
    assert elements(page) <= known
    seen.assert_clean()


def test_rendered_by_the_server(chrome: Browser, stage: Any, seen: Seen, known: set[str]) -> None:
    """The same by a form, with a parser of HTML between; a script must not run in what it made."""
    stage.engine.concepts = concepts()
    stage.engine.change = lambda found: found._replace(group=PAYLOADS[0], fallback=True)
    whole = "\n".join(PAYLOADS)
    page = seen.go()
    page.fill("#text", whole)
    # The form itself, past the script that would send it.
    page.evaluate("() => HTMLFormElement.prototype.submit.call(document.getElementById('ask'))")
    page.wait_for_selector("#result:not([hidden])")
    assert "".join(page.eval_on_selector_all("#heat > span", LABELS)) == whole
    assert page.input_value("#text") == whole
    assert page.eval_on_selector_all("#concepts .label", LABELS) == list(PAYLOADS)
    assert page.eval_on_selector_all("#concepts .contexts li", LABELS) == list(PAYLOADS)
    assert page.eval_on_selector_all("#concepts .label", SHOWN) == [plain(text) for text in PAYLOADS]
    assert elements(page) <= known
    seen.assert_clean()
    seen.assert_forgets("pwned")


def test_in_traffic(seen: Seen, stage: Any, known: set[str]) -> None:
    page = seen.page
    for begin in range(0, len(PAYLOADS), 50):
        some = PAYLOADS[begin : begin + 50]
        stage.sink.events.clear()
        stage.put(*(event(k, group=text, adapter=text, p_value=0.001) for k, text in enumerate(some)))
        seen.go("/traffic")
        seen.until_live()
        groups = page.eval_on_selector_all("#tail tbody td:nth-child(3)", LABELS)
        assert groups[::-1] == [plain(text) for text in some]
        assert elements(page) <= known
    stage.sink.events.clear()
    page.evaluate("() => { last = 0; document.querySelector('#tail tbody').replaceChildren(); }")
    stage.put(*(event(k, group=text, adapter=text) for k, text in enumerate(PAYLOADS[:40])))
    page.wait_for_selector("#tail tr[data-id='40']", state="attached")
    assert page.eval_on_selector_all("#tail tbody td:nth-child(3)", LABELS)[::-1] == list(PAYLOADS[:40])
    assert elements(page) <= known
    seen.assert_clean()


def test_as_metadata_and_request_of_the_api(seen: Seen, stage: Any, known: set[str]) -> None:
    client = httpx.Client(base_url=stage.origin)
    for begin in range(0, len(PAYLOADS), 8):
        asked = {"input": "an odd text", "metadata": {text[:64]: text[:256] for text in PAYLOADS[begin : begin + 8]}}
        assert client.post("/v1/score", json=asked).status_code == 200
    page = seen.go("/traffic")
    assert "pwned" not in page.content()
    assert elements(page) <= known
    seen.assert_clean()


def test_on_the_card(seen: Seen, stage: Any, known: set[str]) -> None:
    every = " ".join(PAYLOADS)
    stage.engine.artifact = ARTIFACT | {"model_rev": every, every: every, "detector": every}
    stage.engine.groups = [GroupFacts(text, 9, 0.1, None, 0.0, 1.0) for text in PAYLOADS]
    stage.engine.card = {
        "architecture": every,
        "layers": list(PAYLOADS),
        "baselines": [{"name": text, "what": text, "n": text, "threshold": text, "correlation": [text]} for text in PAYLOADS],
    }  # fmt: skip
    page = seen.go("/card")
    assert page.locator("tbody").nth(0).locator("th").all_text_contents() == [plain(text) for text in PAYLOADS]
    assert elements(page) <= known
    seen.assert_clean()


def test_a_page_of_another_origin_can_neither_frame_nor_post(chrome: Browser, stage: Any) -> None:
    with opened(chrome, stage.origin) as seen:
        page = seen.page
        other = stage.origin.replace("127.0.0.1", "localhost")
        page.route(
            f"{other}/evil",
            lambda route: route.fulfill(
                content_type="text/html",
                body=f"<iframe src='{stage.origin}/'></iframe><form method=post action='{stage.origin}/'>"
                "<input name=text value=odd></form>",
            ),
        )
        page.goto(f"{other}/evil")
        while not page.frames[1].url.startswith("chrome-error:"):
            assert page.frames[1].locator("#ask").count() == 0
            page.wait_for_timeout(10)
        page.evaluate("() => document.forms[0].submit()")
        page.wait_for_url(f"{stage.origin}/")
        assert '"status": 403' in page.content()
        assert stage.sink.put_events == []
