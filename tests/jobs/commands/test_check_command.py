"""`kosmos2 check` on given results; tests/core/check runs the blocks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli import run_command
from kosmos2_core.check import run
from kosmos2_core.check.blocks.tokens import TokenComparison, TokenFigures
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only block. All answers are right."""
    give(0, monkeypatch)


def give(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = TokenComparison(
        model="random", ngram_size=0, answers=4, tokens=30, ties=0, wrong=wrong
    )
    figures = TokenFigures(
        comparisons=(compared,), is_oracle_mended=False, shifts_padded_rows=False
    )
    [block] = [each for each in run.BLOCKS if each.name == "tokens"]
    monkeypatch.setattr(run, "BLOCKS", [replace(block, measure=lambda *_: figures)])


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
    give(1, monkeypatch)
    assert run_command(["check", "--device", "cpu"]) == 1
    assert "WRONG" in capsys.readouterr().out
