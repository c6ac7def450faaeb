"""Pictures of the views, for the documentation.

    PERIMETRY_SERVICE=http://127.0.0.1:8765 PERIMETRY_SCREENSHOTS=docs/images python -m pytest tests/monitor/web/test_screenshots.py

photographs a service that is running; without an address it is one over fakes, without a folder the pictures are thrown away.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser
from tests.monitor.web.browser import opened
from tests.monitor.web.stage import event, staged

from perimetry.monitor.web.examples import EXAMPLES

MOST = 130_000
"""Bytes of a picture."""
SIZE = {"width": 1120, "height": 1260}


@contextmanager
def service() -> Iterator[str]:
    """The address of the service that is shown."""
    named = os.environ.get("PERIMETRY_SERVICE")
    if named:
        yield named.rstrip("/")
        return
    with staged() as stage:
        stage.put(*(event(k, p_value=(k % 40 + 1) / 40 if k % 9 else 0.002) for k in range(240)))
        yield stage.origin


def small(path: Path) -> None:
    """Fewer colours: a picture of a page needs no more."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def test_pictures_of_the_views(chrome: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PERIMETRY_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with service() as origin, opened(chrome, origin, viewport=SIZE, color_scheme="light") as seen:
        page = seen.go()
        seen.score(EXAMPLES[1].text)
        assert page.is_visible("#result")
        page.evaluate("scrollTo(0, document.getElementById('verdict').offsetTop - 12)")
        page.screenshot(path=folder / "monitor-prompt.png")
        seen.go("/traffic")
        seen.until_live()
        page.screenshot(path=folder / "monitor-traffic.png")
        seen.go("/card")
        page.screenshot(path=folder / "monitor-card.png")
    for name in ("prompt", "traffic", "card"):
        path = folder / f"monitor-{name}.png"
        small(path)
        with Image.open(path) as picture:
            assert picture.size == tuple(SIZE.values())
            assert len(picture.convert("RGB").getcolors(10**6) or []) > 8
        assert path.stat().st_size < MOST
