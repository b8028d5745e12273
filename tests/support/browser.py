"""A real browser for the pages that we write: whichever Chromium this machine has."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.patience import patient

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_HINT = "no Chromium on the PATH: `apt-get install chromium`, or name one by CHROMIUM=/path/to/it"
_FLAGS = (
    *("no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-quic"),
)
DESKTOP, PHONE = (1280, 900), (390, 844)
_TIMEOUT_S = 60


def chromium() -> str:
    """Its path. Without one the test is skipped, and says how to get one; under CI it fails."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_HINT)
    return found


@dataclass(slots=True, kw_only=True)
class Visit:
    """A page, and all that it should not have done: what it asked for, and what went wrong."""

    page: Page
    requests: list[str] = field(default_factory=list)  # schemes; "file" is the page itself
    troubles: list[str] = field(default_factory=list)

    def open(self, path: Path, fragment: str = "") -> None:
        self.page.goto(path.as_uri() + fragment)

    def watch(self) -> None:
        page, troubles = self.page, self.troubles
        page.on("request", lambda request: self.requests.append(request.url.split(":")[0]))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))

    def is_wider_than_the_screen(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def assert_in_view(self, selector: str) -> None:
        """Every element that the selector names has a size, and lies within the page's width."""
        width = self.page.viewport_size["width"] if self.page.viewport_size else 0
        found = self.page.locator(selector).evaluate_all(
            "elements => elements.map(element => element.getBoundingClientRect().toJSON())"
        )
        assert found
        for box in found:
            assert box["width"] > 0, selector
            assert box["height"] > 0, selector
            assert box["x"] >= 0, selector
            assert box["x"] + box["width"] <= width, selector

    def resize(self, size: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})


@contextmanager
def running_browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[f"--{flag}" for flag in _FLAGS]
        )
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, **context: Any) -> Iterator[Visit]:
    """A fresh page; `context` are playwright's options of it. In the end nothing went wrong."""
    width, height = DESKTOP
    page = browser.new_page(viewport={"width": width, "height": height}, **context)
    page.set_default_timeout(1000 * patient(_TIMEOUT_S))
    visit = Visit(page=page)
    visit.watch()
    yield visit
    page.close()
    assert visit.troubles == []
    assert set(visit.requests) <= {"file", "data"}
