"""A real browser: where it is found, and pages of which everything is written down that they must not do.

`PERIMETRY_CHROMIUM` names another browser than the `chromium` on the path. Without either the tests fail, unless
`PERIMETRY_SKIP_BROWSER=1` says that this machine has none.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

__all__ = ["Seen", "browser", "chromium", "installed", "opened"]

_MISSING = (
    "no Chromium: install it (Debian, Ubuntu: apt-get install chromium; elsewhere: python -m playwright install chromium), "
    "or name one in PERIMETRY_CHROMIUM, or set PERIMETRY_SKIP_BROWSER=1 to leave the tests of the page out"
)
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective + " " + event.sample));
"""


def installed() -> str | None:
    """The browser that this machine has."""
    named = os.environ.get("PERIMETRY_CHROMIUM")
    found = shutil.which(named or "chromium")
    if found is None and named is None:
        with sync_playwright() as playwright:
            own = Path(playwright.chromium.executable_path)
        found = str(own) if own.is_file() else None
    return found


def chromium() -> str:
    """The browser; the test fails where there is none."""
    if os.environ.get("PERIMETRY_SKIP_BROWSER") == "1":
        pytest.skip("PERIMETRY_SKIP_BROWSER=1")
    found = installed()
    if found is None:
        pytest.fail(_MISSING)
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that reaches this machine only. While it is open, no event loop can be run in this thread."""
    path = chromium()
    with sync_playwright() as playwright:
        outside = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking"]
        found = playwright.chromium.launch(executable_path=path, args=[*outside, "--js-flags=--expose-gc"])
        try:
            yield found
        finally:
            found.close()


class Seen:
    """A page, and what it did."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self.origin = page, origin
        self.requests: list[Request] = []
        self.said: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", self._asked)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", self._dialog)

    def _asked(self, request: Request) -> None:
        self.requests.append(request)

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def go(self, path: str = "/") -> Page:
        self.page.goto(self.origin + path)
        return self.page

    def until(self, true: str, seconds: float = 20.0) -> None:
        """Until an expression is true. The policy of the page lets nothing be evaluated by the page itself, so it is asked again and again."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(true):
            assert time.monotonic() < end, true
            self.page.wait_for_timeout(10)

    def until_live(self) -> None:
        """Until events are followed."""
        self.until("document.getElementById('said').textContent === 'Live.'")

    def score(self, text: str) -> Page:
        """Have a text scored by the script, and wait for the verdict or for what went wrong."""
        page = self.page
        page.fill("#text", text)
        page.click("#go")
        self.until("!document.getElementById('go').disabled")
        return page

    def assert_clean(self, *allowed: str) -> None:
        """No violation, dialog or error, and nothing asked of anybody else. `allowed`: parts of messages that are expected."""
        assert self.page.evaluate("window.violations") == []
        assert self.page.evaluate("typeof window.pwned") == "undefined"
        assert self.dialogs == []
        loud = [line for line in self.said if not any(part in line for part in allowed)]
        assert loud == []
        assert [one.url for one in self.requests if not one.url.startswith(self.origin + "/")] == []

    def assert_forgets(self, *secrets: str) -> None:
        """None of these texts is in an address, in a storage of the browser, or in what a link would carry."""
        addresses = [one.url for one in self.requests] + [one.headers.get("referer", "") for one in self.requests]
        kept = self.page.evaluate(
            "async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, "
            "history.state, await caches.keys(), await indexedDB.databases()])"
        )
        for secret in secrets:
            assert not [address for address in addresses if secret in address]
            assert secret not in kept


@contextmanager
def opened(found: Browser, origin: str, **options: Any) -> Iterator[Seen]:
    """A page of a fresh profile."""
    context = found.new_context(**options)
    context.add_init_script(_WATCH)
    try:
        yield Seen(context.new_page(), origin)
    finally:
        context.close()
