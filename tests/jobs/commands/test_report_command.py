"""`kosmos2 report` and `view`: the pages that they write."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import run_command
from jobs.commands.report import write_html
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, pictures


@pytest.mark.parametrize(
    ("options", "written"),
    [([], {"report.html", "contact-sheet.html"}), (["--count", "0"], {"report.html"})],
)
def test_report_writes_itself_and_the_sheet_that_it_links_to(
    tmp_path: Path, options: list[str], written: set[str]
) -> None:
    write_dataset(tmp_path / "data", {"a.tar": (pictures(2), [[an_annotation()]] * 2)})
    html = tmp_path / "report.html"
    arguments = ["report", str(tmp_path / "data" / "out"), "--html", str(html), *options]
    assert run_command(arguments) == 0
    assert {path.name for path in tmp_path.glob("*.html")} == written
    assert ('href="contact-sheet.html"' in html.read_text()) is (len(written) == 2)


@pytest.mark.parametrize("command", ["view", "report"])
def test_a_page_that_has_no_place_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "data", {"a.tar": (pictures(2), [[an_annotation()]] * 2)})
    page = tmp_path / "nowhere" / "page.html"
    assert run_command([command, str(tmp_path / "data" / "out"), "--html", str(page)]) == 2
    assert f"{page.parent}" in capsys.readouterr().err


def test_page_that_fails_halfway_leaves_the_earlier_one(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise OSError("no more")

    path = tmp_path / "page.html"
    write_html(path, ["whole"], name="page")
    with pytest.raises(OSError, match="no more"):
        write_html(path, pieces(), name="page")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
