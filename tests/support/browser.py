"""A real browser for the pages that we write: whichever Chromium this machine has."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.patience import patient

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_HINT = "no Chromium on the PATH: `apt-get install chromium`, or name one by CHROMIUM=/path/to/it"
_FLAGS = (
    *("no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-quic"),
)
DESKTOP, PHONE = (1280, 900), (390, 844)
_TIMEOUT_S = 60
ColorScheme = Literal["dark", "light"]


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

    @contextmanager
    def watched(self) -> Iterator[None]:
        troubles = self.troubles
        watchers: dict[str, Callable[[Any], object]] = {
            "request": lambda request: self.requests.append(request.url.split(":")[0]),
            "dialog": lambda dialog: (troubles.append(dialog.message), dialog.dismiss()),
            "console": lambda message: troubles.append(message.text),
            "pageerror": lambda error: troubles.append(str(error)),
        }
        for event, watcher in watchers.items():
            self.page.on(event, watcher)
        yield
        for event, watcher in watchers.items():
            self.page.remove_listener(event, watcher)

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
def running_browser() -> Iterator[Page]:
    """Its only page: to make another takes as long as to start it."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[f"--{flag}" for flag in _FLAGS]
        )
        page = browser.new_page()
        page.set_default_timeout(1000 * patient(_TIMEOUT_S))
        yield page
        browser.close()


@contextmanager
def visiting(page: Page, color_scheme: ColorScheme = "light") -> Iterator[Visit]:
    """A desktop, on which in the end nothing went wrong."""
    visit = Visit(page=page)
    visit.resize(DESKTOP)
    page.emulate_media(color_scheme=color_scheme)
    with visit.watched():
        yield visit
    page.goto("about:blank")
    assert visit.troubles == []
    assert set(visit.requests) <= {"file", "data"}
