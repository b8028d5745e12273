"""`kosmos2 check` on a model that takes seconds."""

import json
from pathlib import Path

import pytest

from jobs.cli import run_command
from kosmos2_core.check import run
from kosmos2_core.check.blocks import tokens
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from tests.support.checks import TINY


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/core/check runs all blocks."""
    monkeypatch.setitem(run.EXTENTS, "cpu", TINY)
    monkeypatch.setattr(run, "BLOCKS", [each for each in run.BLOCKS if each.name == "tokens"])


def test_json_is_the_only_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "check.json"
    assert run_command(["check", "--device", "cpu", "--json", "--output", str(file)]) == 0
    printed = capsys.readouterr()
    body = json.loads(printed.out)
    assert body == json.loads(file.read_text())
    assert body["is_right"] is True
    assert "tokens: passed" in printed.err


def test_without_json_the_results_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", "--device", "cpu", "--minutes", "0"]) == 0
    printed = capsys.readouterr()
    assert "tokens: skipped" in printed.out
    assert printed.err == ""


def test_the_model_may_be_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    url = SHAPES_DIRECTORY.as_uri()
    assert (
        run_command(["check", "--device", "cpu", "--minutes", "0", "--model", url, "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["model"] == str(SHAPES_DIRECTORY)


def test_a_wrong_engine_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokens, "is_tie", lambda *_: False)
    monkeypatch.setattr(tokens, "partings", lambda theirs, ours: list(theirs))
    assert run_command(["check", "--device", "cpu"]) == 1
    assert "WRONG" in capsys.readouterr().out
