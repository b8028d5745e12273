"""What the command line prints."""

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Column
from rich.text import Text

from jobs.terminal import DataTable, hours_minutes_seconds, pairs_table, print_results, sparkline
from pipeline.logs import TEXT, TextLines, printable

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_durations_are_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert hours_minutes_seconds(seconds) == text


def test_a_sparkline_shows_the_last_values_beside_the_largest() -> None:
    assert sparkline([9, 0, 1, 7], 3) == "▁▂█"
    assert sparkline([0.0, 0.0], 3) == sparkline([], 3) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat\tand\na dog, é, 猫", "a cat\tand\na dog, é, 猫"),
        ("\x1b[2J\r\x00", r"\u001b[2J\u000d\u0000"),
        ("\u202ecod\u2069", r"\u202ecod\u2069"),
    ],
)
def test_text_does_not_control_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


HOSTILE = "[bold]a\x1b[2Jb[/bold]\u202e [/]"
SHOWN = r"[bold]a\u001b[2Jb[/bold]\u202e [/]"


def test_no_part_of_a_table_controls_the_terminal_or_is_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = DataTable(HOSTILE, Column(HOSTILE, justify="right"), title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, Text(HOSTILE, style="red"), "")
    print_results(table, pairs_table([(HOSTILE, HOSTILE)], title=HOSTILE), HOSTILE)
    said = capsys.readouterr().out
    assert said.count(SHOWN) == 6 + 3 + 1
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_a_cell_keeps_its_style() -> None:
    table = DataTable("state")
    table.add_row(Text("wrong", style="red"))
    Console(file=(file := io.StringIO()), force_terminal=True, color_system="standard").print(table)
    assert "\x1b[31mwrong" in file.getvalue()


def test_a_log_line_does_not_control_the_terminal() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s: broken", (HOSTILE,), None)
    assert TextLines(TEXT).format(record).endswith(f"WARNING {SHOWN}: broken")


def test_commands_print_no_other_tables() -> None:
    for path in (ROOT / "jobs").rglob("*.py"):
        if path.name != "terminal.py":
            text = path.read_text()
            assert "rich.table import Table" not in text, path
            assert "rich.table.Table" not in text, path
