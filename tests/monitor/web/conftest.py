from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from tests.monitor.web.browser import Seen, browser, opened
from tests.monitor.web.stage import Stage, staged


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """A browser for one file of tests."""
    with browser() as found:
        yield found


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A service of its own for one test."""
    with staged() as found:
        yield found


@pytest.fixture
def seen(chrome: Browser, stage: Stage) -> Iterator[Seen]:
    """A fresh page on that service."""
    with opened(chrome, stage.origin) as found:
        yield found
