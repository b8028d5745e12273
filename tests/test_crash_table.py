"""Each row of "What happens when something fails" in docs/operations.md names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SECTION = re.compile(r"^## What happens when\b.*?(?=^## |\Z)", re.M | re.S)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    [section] = _SECTION.findall((ROOT / "docs" / "operations.md").read_text())
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| what fails |")]


def test_table_has_rows() -> None:
    assert len(rows()) >= 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip())
def test_row_names_tests_that_exist(row: str) -> None:
    named = _TEST.findall(row)
    assert named
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text()
