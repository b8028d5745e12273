"""`kosmos2 annotate`: what it shows of a run."""

from pathlib import Path

import pytest

from jobs.cli import run_command
from jobs.commands.annotate import _lines, _pace
from pipeline.driver.tally import Tally
from tests.support.commits import write_dataset


def test_log_lines_are_few(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with _lines() as observe:
        for _ in range(100):
            now += 1
            observe(Tally(shards_total=7).progress())
    [_, _, line] = caplog.records  # after 30, 60 and 90 seconds
    assert line.getMessage() == "0 of 7 shards, starting the model"
    assert line.shards_total == 7


def test_pace_names_what_went_wrong() -> None:
    tally = Tally(shards_failed=2)
    tally.add_images(annotated=90, rejected=10)
    assert "90 images, 10 rejected, 2 shards failed" in _pace(tally.progress())


def test_few_samples_that_are_all_rejected_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few to fail their shard: the run finds it committed, and so needs no Ray."""
    write_dataset(tmp_path, {"bad.tar": ([(f"{i}.jpg", b"none") for i in range(3)], [])})
    assert run_command(["annotate", str(tmp_path / "in"), str(tmp_path / "out")]) == 3
    assert "most samples were rejected" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "_SUCCESS.json").exists()
