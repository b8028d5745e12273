from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from pipeline.storage import OutputStore, open_output
from tests.support.browser import running_browser


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    if request.param == "local":
        return open_output(str(tmp_path / "out"))
    return open_output(f"s3://{request.getfixturevalue('s3_bucket')}/out")


@pytest.fixture
def local(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """Started once for the tests of a page; it takes seconds."""
    with running_browser() as started:
        yield started
