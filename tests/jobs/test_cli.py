"""The command line, as far as it needs no cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.annotate import LINE_EVERY_S, _duration, _lines, _pace
from jobs.cli import run_command
from pipeline.progress import Tally
from pipeline.spec import JobOptions

COMMANDS = ("annotate", "status", "view", "demo", "bench images", "bench pipeline")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_one_page_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*command.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert f"Usage: kosmos2 {command}" in page
    assert page.count("\n") < 80


def test_every_option_of_a_job_is_a_flag_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["annotate", "--help"])
    page = capsys.readouterr().out
    for name, option in JobOptions.model_fields.items():
        assert f"--{name.removesuffix('_s').replace('_', '-')}" in page
        assert option.description


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["annotate", "in"], "output"),
        (["annotate", "in", "out", "--bogus", "1"], "--bogus"),
        (["annotate", "in", "out", "--task", "sing"], "there are: brief, detailed"),
        (["annotate", "in", "out", "--limit", "0"], "greater than or equal to 1"),
        (["annotate", "in", "out", "--dtype", "int8"], "float16"),
        (["annotate", "/nowhere/at/all", "{tmp}/out"], "/nowhere/at/all"),
        (["annotate", "s3://key:secret@bucket/in", "{tmp}/out"], "AWS_ACCESS_KEY_ID"),
        (["annotate", "{tmp}", "http://example.test/out"], "local directory or to s3://"),
        (["status", "{tmp}/nothing"], "holds no dataset of ours"),
        (["view", "{tmp}/nothing"], "holds no dataset of ours"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_exits_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([a.replace("{tmp}", str(tmp_path)) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert said.lower() in " ".join((printed.out + printed.err).lower().split())
    assert "secret" not in printed.err.replace("AWS_SECRET_ACCESS_KEY", "")


def test_command_is_quick_to_answer() -> None:
    """Neither torch nor Ray is loaded to print help."""
    code = (
        "import sys; from jobs.cli import run_command; run_command(['--help']); "
        "sys.exit(bool({'torch', 'ray', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_durations_are_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_log_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    with _lines(Console(stderr=True)) as observe:
        for _ in range(100):
            observe(Tally().progress())
    assert LINE_EVERY_S == 30
    assert capsys.readouterr().err == ""


def test_pace_names_what_went_wrong() -> None:
    tally = Tally(shards_failed=2)
    tally.add_images(annotated=90, rejected=10)
    assert "90 images, 10 rejected, 2 shards failed" in _pace(tally.progress())


def test_status_of_a_demo_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo is the main job on a local Ray of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "demo", str(tmp_path), "--shards", "1", "--images", "5"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "An image of" in done.stdout
    assert (tmp_path / "contact-sheet.html").read_text().count("<figure>") == 5
    assert run_command(["status", str(tmp_path / "out"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["totals"]["samples"], status["shards_left"]) == (5, 0)
