"""What the command line prints."""

import pytest

from jobs.terminal import hours_minutes_seconds, printable, sparkline


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
