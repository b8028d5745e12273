"""The command line, as far as it needs no cluster."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App
from cyclopts.argument import ArgumentCollection
from pydantic import BaseModel

from jobs.cli import COMMANDS, app_for, run_command
from jobs.options.groups import PANEL_OF, PANELS
from kosmos2_core.errors import CheckpointError
from pipeline.dataset.ledger import Ledger
from pipeline.errors import (
    AlreadyExists,
    Conflict,
    CorruptOutput,
    LeaseHeld,
    Stalled,
    StorageError,
    StorageRefused,
    WorkerDied,
)
from pipeline.exports.options import ExportOptions
from pipeline.spec.job import JobOptions
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, pictures


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=() if c in ("plan", "bench images") else pytest.mark.slow)
        for c in COMMANDS
    ],
)
def test_every_command_has_a_page_of_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The document of all commands, which is compared with the program, is made of the same."""
    assert run_command([*command.split(), "--help"]) == 0
    assert f"Usage: kosmos2 {command}" in capsys.readouterr().out


def test_options_of_a_job_stand_in_panels(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(JobOptions.model_fields) <= PANEL_OF.keys()
    run_command(["annotate", "--help"])
    titles = re.findall(r"^╭─ ([\w ]+?) ─", capsys.readouterr().out, re.MULTILINE)
    job = [title for title in PANELS if title != "Destination"]
    assert titles == ["Arguments", *job]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_an_option_is_a_phrase_of_its_own(command: str) -> None:
    """It begins as a sentence begins, or with a choice: `auto: ...`; and it ends as one ends."""
    for argument in _arguments(command):
        text = argument.parameter.help
        if not argument.children:
            assert text, argument.name
            assert re.match(r"[A-Z]|`?[a-z]+`?:", text), (argument.name, text)
            assert text.rstrip().endswith("."), (argument.name, text)


@pytest.mark.parametrize("command", COMMANDS)
def test_json_prints_and_html_names_a_file(command: str) -> None:
    for argument in _arguments(command):
        if argument.name == "--json":
            assert argument.hint is bool
            assert argument.parameter.help == "Print one JSON object on the standard output."
        if argument.name == "--html":
            assert argument.hint in (Path, Path | None)


@cache
def _arguments(command: str) -> ArgumentCollection:
    group: App = app_for([command])
    for name in command.split():
        group = group[name]
    return group.assemble_argument_collection(parse_docstring=True)


@pytest.mark.parametrize(("command", "summary"), [(c, text) for c, (_, text) in COMMANDS.items()])
def test_a_command_has_a_line_in_the_list_of_commands(
    command: str, summary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    *group, name = command.split()
    assert run_command([*group, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert f"{name} {summary}" in shown


@pytest.mark.parametrize(
    ("command", "options"), [("annotate", JobOptions), ("export", ExportOptions)]
)
def test_every_option_of_a_job_is_a_flag_with_help(
    command: str, options: type[BaseModel], capsys: pytest.CaptureFixture[str]
) -> None:
    run_command([command, "--help"])
    page = capsys.readouterr().out
    for name, option in options.model_fields.items():
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
        (["annotate", "{tmp}", "{tmp}/o", "--output-storage-option", "token=x"], "AWS_SECRET"),
        (["annotate", "{tmp}", "{tmp}/o", "--output-storage-option", "sse=AES256"], "takes no"),
        (
            ["annotate", "{tmp}", "http://example.test/out"],
            "local directory, to s3://, gs:// or az://",
        ),
        (["status", "{tmp}/nothing"], "holds no dataset"),
        (["view", "{tmp}/nothing"], "holds no dataset"),
        (["report", "{tmp}/nothing"], "holds no dataset"),
        (["export", "{tmp}/nothing", "{tmp}/x", "--format", "hf"], "holds no dataset"),
        (["export", "{tmp}/nothing", "{tmp}/x", "--format", "jpeg"], "label-studio"),
        (["export", "{tmp}", "{tmp}/x", "--format", "hf", "--split", "train"], "share above 0"),
        (["verify", "{tmp}/nothing"], "holds no dataset"),
        (["retry", "{tmp}/nothing"], "holds no dataset"),
        (["retry", "{tmp}/nothing", "--error-type", "x"], "add --samples"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_exits_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([a.replace("{tmp}", str(tmp_path)) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert said.lower() in " ".join((printed.out + printed.err).lower().split())
    assert "secret" not in printed.err.replace("AWS_SECRET_ACCESS_KEY", "")


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["stats"],
        ["view", "--html", "{tmp}/view.html"],
        ["report", "--html", "{tmp}/report.html"],
        ["retry", "--samples"],
        ["export", "{tmp}/boxes", "--format", "boxes"],
        ["dedup", "{tmp}/unique"],
        ["filter", "{tmp}/sure", "--min-score", "0.5"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("has_summary", [True, False], ids=["summarised", "unsummarised"])
def test_a_damaged_commit_is_named(
    command: list[str], has_summary: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_dataset(tmp_path, {"a.tar": (pictures(2), [[an_annotation()]] * 2)})
    [key] = job.store.list("annotations/")
    if has_summary:
        ledger = Ledger(job.store)
        ledger.rebuild(list(ledger.summaries().values()))
    job.store.put(key, job.store.get(key).data[:-100])
    name, *options = (word.replace("{tmp}", str(tmp_path)) for word in command)
    code = run_command([name, str(tmp_path / "out"), *options])
    said = " ".join(capsys.readouterr().err.split())
    if has_summary and name in ("status", "retry"):  # they do not need to look
        assert code == 0
    else:
        assert code == 2
        assert f"{key} is damaged" in said
        assert "`kosmos2 verify`" in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict("read it again"), 1),
        (AlreadyExists("another run was faster"), 1),
        (WorkerDied("its process died"), 1),
        (StorageError("no answer"), 1),
        (StorageRefused("no such bucket"), 2),
        (CorruptOutput("damaged"), 2),
        (CheckpointError("no checkpoint"), 2),
        (LeaseHeld("another run"), 4),
        (Stalled("no row came"), 5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_same_command_may_mend_exits_1_and_what_it_cannot_2(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("jobs.commands.status.named_dataset", fails)
    assert run_command(["status", "out"]) == code
    assert str(error) in capsys.readouterr().err


def test_command_is_quick_to_answer() -> None:
    """No torch, Ray or fsspec is loaded to print help, nor is any command to list all."""
    slow = {"torch", "ray", "transformers", "fsspec", "jobs.commands"}
    code = (
        "import sys; from jobs.cli import run_command; run_command(['--help']); "
        f"sys.exit(bool({slow} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_status_of_a_demo_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo is the main job on a local Ray of its own; it needs no home directory, and imports
    nothing from the working directory, on workers neither."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("pipeline", "kosmos2_core", "utils", "torch", "statistics"):
        (folder / f"{name}.py").write_text("raise RuntimeError('not ours')")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "demo", str(tmp_path), "--shards", "1", "--images", "5"],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HOME": "/dev/null", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert "An image of" in done.stdout
    assert (tmp_path / "contact-sheet.html").read_text().count("data:image/jpeg") == 5
    assert run_command(["status", str(tmp_path / "out"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["totals"]["samples"], status["shards_left"]) == (5, 0)


def test_an_interrupted_command_says_so_and_exits_7(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.commands.status.named_dataset", interrupted)
    assert run_command(["status", str(tmp_path)]) == 7
    assert "interrupted; run the same command again to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("annotate in out --samples-per-shard 0", "--samples-per-shard: Input should be"),
        ("annotate in out --actors 3:2", "--actors: '3:2': give a number from 1 on"),
        ("annotate in out --gpus-per-actor 0", "--gpus-per-actor: Input should be"),
        ("export out to --format cocoa", "--format: Input should be 'hf'"),
        ("annotate in out --nonsense", "Unknown option"),
    ],
)
def test_an_option_that_is_wrong_is_named_in_our_words(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments.split()) == 2
    error = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert said in error
    assert "pydantic" not in error


def test_what_nobody_foresaw_is_one_line_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("two is three\nand more of it")

    monkeypatch.setattr("jobs.commands.status.named_dataset", fails)
    assert run_command(["status", str(tmp_path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("kosmos2: this is a bug in kosmos2: AssertionError: two is three; ")
    monkeypatch.setenv("KOSMOS2_DEBUG", "1")
    with pytest.raises(AssertionError, match="two is three"):
        run_command(["status", str(tmp_path)])
