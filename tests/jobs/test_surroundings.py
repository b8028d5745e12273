"""Wherever the command is started: streams that are closed, folders that are gone, a Ray that
cannot start. Each ends as a shell expects, and in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import SpecError
from pipeline.execution.cluster import connect
from pipeline.exit_codes import ExitCode
from tests.support.commits import write_dataset
from tests.support.drivers import kosmos2
from tests.support.s3 import free_ports
from tests.support.tars import an_annotation, picture, pictures

_ROOT = Path(__file__).parents[2]
_MAIN = "from jobs.cli import main; main()"  # as the `kosmos2` script does it


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT), **changes}


def _run(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line; `shell` is what a shell reads behind it."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", sys.executable, "-c", _MAIN, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(**environment),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    write_dataset(tmp_path / "\u0436", {"a.tar": (pictures(2), [[an_annotation()]] * 2)})
    return str(tmp_path / "\u0436" / "out")


# ---- streams


@pytest.mark.parametrize("arguments", ["status {}", "--help"])
def test_a_closed_pipe_ends_the_command_without_a_word(arguments: str, dataset: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as closed:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments.format(dataset).split()],
            check=False,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
    assert (done.returncode, done.stderr.strip()) == (ExitCode.CLOSED_PIPE, "")


def test_a_log_that_nobody_reads_does_not_end_the_command(dataset: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    page = tmp_path / "page.html"
    with os.fdopen(write) as closed:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, "view", dataset, "--html", str(page)],
            check=False,
            stdout=subprocess.PIPE,
            stderr=closed,
            env=_environment(),
        )
    assert (done.returncode, done.stdout) == (ExitCode.DONE, b"")
    assert page.is_file()


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("> /dev/full", ExitCode.ERROR, "cannot write to the standard output: No space left"),
        (">&-", ExitCode.DONE, ""),
        ("2>&-", ExitCode.DONE, ""),
        pytest.param("<&-", ExitCode.DONE, "", marks=pytest.mark.slow),
        ("<&- >&- 2>&-", ExitCode.DONE, ""),
    ],
)
def test_streams_that_are_closed_or_full(
    shell: str, code: ExitCode, said: str, dataset: str
) -> None:
    done = _run("status", dataset, "--json", shell=shell)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"\u0436"), ("utf-8", "\u0436")])
def test_what_a_terminal_cannot_show_is_escaped(
    encoding: str, shown: str, dataset: str, tmp_path: Path
) -> None:
    done = kosmos2("stats", dataset, folder=tmp_path, encoding=encoding)
    assert (done.returncode, done.stderr.strip()) == (ExitCode.DONE, "")
    assert f"/{shown}/out" in "".join(done.stdout.split())
    done = kosmos2("status", f"{dataset}/nothing", folder=tmp_path, encoding=encoding)
    assert done.returncode == ExitCode.USAGE
    assert f"/{shown}/out/nothing holds no dataset" in done.stderr


# ---- folders


@pytest.mark.parametrize(
    "arguments",
    ["status out", "demo", pytest.param("status {} --json", marks=pytest.mark.slow)],
)
def test_a_deleted_working_directory_is_named(arguments: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line, words = f'rmdir "{gone}"; exec "$@"', arguments.format(tmp_path).split()
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-c", _MAIN, *words],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=gone,
    )
    assert done.returncode == ExitCode.USAGE
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("kosmos2: the working directory cannot be used")


def test_modules_of_the_working_directory_are_not_ours(tmp_path: Path) -> None:
    """As `python -m` runs it, which looks there first."""
    for module in ("pipeline", "kosmos2_core"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('not ours')")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "status", "nothing"],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=tmp_path,
    )
    assert done.returncode == ExitCode.USAGE
    assert "holds no dataset" in done.stderr


# ---- Ray


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "kosmos2 submit"),
        ("ray://127.0.0.1:10001", "begins with ray://"),
        ("redis://:secret@127.0.0.1:6379", "begins with redis://"),
        ("127.0.0.1", "which is not HOST:PORT"),
        ("::::", "which is not HOST:PORT"),
        ("127.0.0.1:port", "which is not HOST:PORT"),
        ("127.0.0.1:99999", "which is not HOST:PORT"),
        ("127.0.0.1:{closed}", "no Ray cluster answers at 127.0.0.1:{closed}"),
        ("[::1]:{closed}", "no Ray cluster answers"),
        ("no-such-host.invalid:6379", "no Ray cluster answers at no-such-host.invalid:6379"),
    ],
)
def test_an_address_that_is_wrong_is_found_at_once(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [closed] = free_ports(1)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address.format(closed=closed))
    with pytest.raises(SpecError) as raised:
        connect()
    assert said.format(closed=closed) in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TMPDIR": "{long}"}, "RAY_TMPDIR"),
        ({"RAY_TMPDIR": "{file}"}, "RAY_TMPDIR"),
    ],
    ids=["long", "file"],
)
def test_a_ray_that_does_not_start_is_one_sentence(
    environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    (tmp_path / "file").write_text("")
    (tmp_path / ("long" * 30)).mkdir()
    places = {"long": str(tmp_path / ("long" * 30)), "file": str(tmp_path / "file")}
    changes = {name: value.format(**places) for name, value in environment.items()}
    job = ("annotate", str(tmp_path / "in"), str(tmp_path / "out"))
    done = kosmos2(*job, folder=tmp_path, **changes)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("kosmos2: ")
    assert said in done.stderr
