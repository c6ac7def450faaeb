"""The prompt view in a real browser: what is shown is what the API says, and every state is said."""

import asyncio
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page
from tests.monitor.web.browser import Seen, opened
from tests.monitor.web.stage import Stage, staged

from perimetry.monitor.problems import Problem
from perimetry.monitor.web.examples import EXAMPLES

pytestmark = pytest.mark.web

TEXT = "  Two\tlines,\n\nwith an odd \u202eword\u202c and\u00a0a café 🙂 at the end.\u200b"
SPANS = "els => els.map(e => [e.textContent, e.className, e.title, e.getAttribute('aria-label')])"


def api(stage: Stage, text: str) -> Any:
    """What the API says of a text."""
    answer = httpx.post(f"{stage.origin}/v1/score", json={"input": text, "detail": "concepts"})
    assert answer.status_code == 200
    return answer.json()


def assert_tokens(page: Page, told: Any, text: str) -> None:
    """Spans and table say what the API says, and the spans together are the text."""
    spans = page.eval_on_selector_all("#heat > span", SPANS)
    assert "".join(span[0] for span in spans) == text
    assert [span[0] for span in spans] == [token["text"] for token in told["tokens"]]
    for at, ((_, name, title, label), token) in enumerate(zip(spans, told["tokens"], strict=True)):
        if token["score"] is None:
            assert (name, title) == ("special", f"token {at} · not scored")
        else:
            _, score, level = title.split(" · ")
            assert score == f"score {token['score']:.6g}"
            assert level == name
        assert label.endswith(title)
    page.locator("#rows summary").click()
    page.wait_for_selector("#rows tbody tr")
    cells = page.eval_on_selector_all("#rows tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent))")
    shown = ["–" if t["score"] is None else f"{t['score']:.6g}" for t in told["tokens"]]
    assert [cell[2] for cell in cells] == shown
    assert "".join(cell[1] for cell in cells) == text


def test_what_is_shown_is_what_the_api_says(seen: Seen, stage: Stage) -> None:
    page = seen.go()
    seen.score(TEXT)
    told = api(stage, TEXT)
    assert_tokens(page, told, TEXT)
    fact = lambda name: page.inner_text(f"[data-f={name}]")  # noqa: E731
    assert fact("headline") == "Outside what the model knows"
    assert (fact("p"), fact("score"), fact("threshold")) == (f"{told['p_value']:.4g}", f"{told['score']:.4g}", "8")
    assert fact("fpr") == "0.481 to 1.7 %"
    assert fact("n").replace("\u202f", "") == str(told["n_calibration"])
    assert fact("group") == told["group"]
    concepts = page.locator("#concepts > li")
    assert concepts.count() == len(told["concepts"]) == 2
    assert concepts.nth(0).locator("mark").all_inner_texts() == ["clean", "one"]
    assert "hardest at token 1" in concepts.nth(0).inner_text()
    assert "Never fired on clean text" in concepts.nth(1).inner_text()
    assert page.locator("#heat .esc").evaluate_all("els => els.map(e => e.dataset.shown)") == [
        *("⇥", "⏎", "⏎", "U+202E", "U+202C", "U+00A0", "U+200B"),
    ]
    seen.assert_clean()
    seen.assert_forgets("lines", "café", "caf%C3%A9")


def test_without_scripts_the_same_is_shown(chrome: Browser, stage: Stage) -> None:
    with opened(chrome, stage.origin, java_script_enabled=False) as seen:
        page = seen.go()
        page.fill("#text", TEXT)
        page.click("#go")
        page.wait_for_selector("#result:not([hidden])")
        assert_tokens(page, api(stage, TEXT), TEXT)
        assert page.input_value("#text") == TEXT
        assert page.inner_text("#headline") == "Outside what the model knows"
        page.click(f"text={EXAMPLES[4].title}")
        page.wait_for_selector("#result:not([hidden])")
        assert page.input_value("#text") == EXAMPLES[4].text
        for path, title in (("/traffic", "Traffic"), ("/card", "Model card")):
            assert page.inner_text("h1") == "Prompt"
            seen.go(path)
            assert page.inner_text("h1") == title
            assert page.locator("table tbody tr").count() > 0
            seen.go()
        assert [one.url for one in seen.requests if not one.url.startswith(stage.origin)] == []


def test_what_people_try_out_is_no_traffic(seen: Seen, stage: Stage) -> None:
    seen.go()
    seen.page.click("text=With typos")
    seen.page.wait_for_selector("#result:not([hidden])")
    assert seen.page.input_value("#text") == EXAMPLES[1].text
    (kept,) = stage.sink.put_events
    assert (kept.adapter, dict(kept.metadata), kept.text) == ("page", {"synthetic": "page"}, EXAMPLES[1].text)
    seen.go("/traffic")
    assert seen.page.inner_text("#total") == "0"


def live(page: Page) -> str:
    """Everything that is read out when it changes."""
    return " ".join(page.locator("[aria-live], [role=status], [role=alert]").all_inner_texts())


def test_every_state_is_read_out(chrome: Browser) -> None:
    with staged(rate_per_s=0.001, burst=11) as stage, opened(chrome, stage.origin) as seen:
        page = seen.go()
        assert "No prompt has been scored yet" in live(page)
        page.click("#go")
        assert "There is no prompt" in live(page)

        held: list[asyncio.Event] = []

        async def wait() -> None:
            held.append(asyncio.Event())
            await held[0].wait()

        stage.engine.before = wait
        page.fill("#text", "a text")
        page.click("#go")
        seen.until("document.getElementById('said').textContent.includes('Scoring')")
        while not held:
            page.wait_for_timeout(5)
        stage.on_loop(held[0].set)
        page.wait_for_selector("#result:not([hidden])")
        assert "Inside what the model knows" in live(page)

        for kind, says in (("restarting", "503"), ("deadline", "504"), ("loading", "The model is being loaded")):
            stage.engine.before = _refuse(kind)
            seen.score("a text")
            assert says in live(page), kind
            assert not page.locator("#result").is_visible()
        stage.engine.before = None
        while "429" not in live(page):
            seen.score("a text")
        assert "Try again in" in live(page)
        seen.assert_clean("Failed to load resource")


def _refuse(kind: str) -> Any:
    async def refuse() -> None:
        raise Problem(kind)

    return refuse


def test_a_service_that_is_not_ready_says_so_and_then_that_it_is(seen: Seen, stage: Stage) -> None:
    stage.engine.state = {"worker": "The worker has died."}
    page = seen.go()
    assert "Not ready, worker: The worker has died." in live(page)
    assert page.inner_text("#ready") == "Not ready"
    stage.engine.state = {"worker": "ok"}
    seen.until("document.getElementById('ready').textContent === 'Ready'")
    assert "The service is ready" in live(page)


def test_a_service_that_is_gone_is_no_verdict(chrome: Browser) -> None:
    with staged() as stage, opened(chrome, stage.origin) as seen:
        seen.go()
        seen.score("a text")
        seen.page.context.set_offline(True)
        seen.score("an odd text")
        assert "does not answer" in live(seen.page)
        assert not seen.page.locator("#result").is_visible()


def test_a_stale_calibration_and_a_thin_group_are_said(seen: Seen, stage: Stage) -> None:
    stage.engine.card = {"written": "2020-01-01T00:00:00+00:00"}
    stage.engine.change = lambda found: found._replace(fallback=True)
    seen.go()
    seen.score("a text")
    said = live(seen.page)
    assert "no longer looks like the calibration" in said
    assert "the meter was written" in said
    assert "too few prompts of the group «short»" in said
    assert seen.page.inner_text("[data-f=threshold]") == "–"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_many_tokens_are_shown_soon(chrome: Browser, stage: Stage, scheme: Any) -> None:
    """8,192 tokens: the target is a second; the bound leaves room for slow machines."""
    text = " ".join(f"word{k}" for k in range(8191))
    with opened(chrome, stage.origin, color_scheme=scheme) as seen:
        seen.go()
        seen.score(text)
        assert seen.page.locator("#heat > span").count() == 8192
        took = seen.page.evaluate(
            "() => { const begin = performance.now(); fill(found); document.body.offsetHeight; return performance.now() - begin; }"
        )
        print(f"8,192 tokens in {took:.0f} ms")
        assert took < 4000
