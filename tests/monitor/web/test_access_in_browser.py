"""For everybody: assistive technology, keyboards, small screens, other eyes, other colours."""

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page
from tests.monitor.web.browser import Seen, opened
from tests.monitor.web.stage import Stage, event, staged

from perimetry.monitor.http.tokens import new_token

pytestmark = pytest.mark.web

VIEWS = ("/", "/traffic", "/card")
TEXT = "The river rose in the night, and an odd \u202eword stood alone\nin the fields of the old town by the sea."


def show(seen: Seen, stage: Stage, path: str) -> Page:
    """A view with everything in it."""
    if not stage.sink.events:
        stage.engine.card = {
            "written": "2020-01-01T00:00:00+00:00",
            "baselines": [{"name": "nll", "what": "x", "n": 9}],
        }
        stage.put(*(event(k, p_value=(k % 40 + 1) / 40 if k % 7 else 0.001) for k in range(60)))
    page = seen.go(path)
    if path == "/":
        seen.score(TEXT)
        page.locator("#rows summary").click()
    return page


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chrome: Browser, stage: Stage, scheme: Any) -> None:
    with opened(chrome, stage.origin, color_scheme=scheme, reduced_motion="reduce") as seen:
        for path in VIEWS:
            assert serious(show(seen, stage, path)) == [], path


def test_axe_finds_nothing_serious_on_the_way_in(chrome: Browser, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token, hashed = new_token()
    path.write_text(f"me score,read {hashed}")
    with staged(tokens=path) as stage, opened(chrome, stage.origin) as seen:
        page = seen.go()
        assert page.url == f"{stage.origin}/login"
        assert serious(page) == []
        page.fill("#token", "x" * 43)
        page.keyboard.press("Enter")
        page.wait_for_url("**/login?again=1")
        assert "no token of this service" in page.inner_text("[role=alert]")
        page.fill("#token", token)
        page.click("text=Log in >> nth=-1")
        page.wait_for_url(f"{stage.origin}/")
        assert page.context.cookies()[0]["httpOnly"]
        assert page.evaluate("document.cookie") == ""
        seen.score("an odd text")
        assert page.inner_text("#headline") == "Outside what the model knows"
        seen.go("/traffic")
        seen.until_live()
        page.click("text=Log out")
        page.wait_for_url(f"{stage.origin}/login")
        seen.assert_forgets(token)


def luminance(rgb: tuple[float, ...]) -> float:
    """Relative luminance of WCAG, of channels from 0 to 255."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nine_classes_can_be_read_and_told_apart_by_all_eyes(chrome: Browser, stage: Stage, scheme: Any) -> None:
    with opened(chrome, stage.origin, color_scheme=scheme) as seen:
        page = show(seen, stage, "/")
        colours = page.eval_on_selector_all(
            "#legend .swatch",
            "els => els.map(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3).map(Number)))",
        )
        assert len(colours) == 9
        for text, ground in colours:
            dark, bright = sorted((luminance(tuple(text)), luminance(tuple(ground))))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5
        session = page.context.new_cdp_session(page)
        page.locator("#legend").scroll_into_view_if_needed()
        boxes = [swatch.bounding_box() for swatch in page.locator("#legend .swatch").all()]
        for eyes in ("none", "deuteranopia", "protanopia", "tritanopia", "achromatopsia"):
            session.send("Emulation.setEmulatedVisionDeficiency", {"type": eyes})
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            seen_as = [luminance(_pixel(picture, box["x"] + 4, box["y"] + box["height"] / 2)) for box in boxes if box]
            order = seen_as if scheme == "dark" else seen_as[::-1]
            assert all(a < b for a, b in pairwise(order)), eyes


def _pixel(picture: Image.Image, x: float, y: float) -> tuple[float, ...]:
    found = picture.getpixel((round(x), round(y)))
    assert isinstance(found, tuple)
    return tuple(float(c) for c in found)


def focused(page: Page) -> Iterator[str]:
    """Where the focus goes, Tab by Tab, until it leaves the page or comes round: ids, or the texts of what has none."""
    where = "() => { const e = document.activeElement; return [[...document.querySelectorAll('*')].indexOf(e), e.id || e.textContent.trim().slice(0, 40), e === document.body] }"
    seen: set[int] = set()
    while True:
        page.keyboard.press("Tab")
        place, name, left = page.evaluate(where)
        if left or place in seen:
            return
        seen.add(place)
        yield name


def test_everything_works_by_keyboard(seen: Seen, stage: Stage) -> None:
    page = seen.go()
    reached = list(focused(page))
    assert reached[0] == "Skip to the content"
    assert {"Prompt", "Traffic", "Model card", "text", "alpha", "go", "Plain English", "OpenAPI"} <= set(reached)
    page.focus("#text")
    page.keyboard.type("one odd word")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    page.focus("#heat")
    told = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        told.append(
            page.evaluate(
                "document.getElementById(document.getElementById('heat').getAttribute('aria-activedescendant')).textContent"
            )
        )
    assert told == ["", "one", " word", " odd", ""]
    assert page.locator("#heat [aria-selected=true]").count() == 1
    page.focus("#rows summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rows tbody tr")
    assert page.locator("#rows tbody tr").count() == 4
    seen.go("/traffic")
    seen.until_live()
    assert "pause" in set(focused(page))


def test_small_screens_need_no_scrolling_aside(chrome: Browser, stage: Stage) -> None:
    with opened(chrome, stage.origin, viewport={"width": 320, "height": 640}) as seen:
        for path in VIEWS:
            page = show(seen, stage, path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
            for name in ("main", ".top"):
                box = page.locator(name).bounding_box()
                assert box is not None
                assert box["width"] <= 320


def test_wishes_of_the_system_are_heard(chrome: Browser, stage: Stage) -> None:
    duration = "getComputedStyle(document.querySelector('#go')).transitionDuration"
    with opened(chrome, stage.origin, reduced_motion="reduce") as seen:
        assert seen.go().evaluate(duration) == "0s"
    with opened(chrome, stage.origin, reduced_motion="no-preference") as seen:
        assert seen.go().evaluate(duration) != "0s"
    with opened(chrome, stage.origin, forced_colors="active") as seen:
        page = show(seen, stage, "/")
        style = "getComputedStyle(document.querySelector('#heat .h8')).textDecorationStyle"
        assert page.evaluate(style) == "double"
