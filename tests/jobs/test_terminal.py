"""What the command line prints."""

import pytest

from jobs.terminal import hours_minutes_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_durations_are_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert hours_minutes_seconds(seconds) == text
