"""Faults on purpose."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from pipeline import faults
from pipeline.errors import StorageError
from pipeline.faults import Injected, arm, fault
from tests.support.patience import wait_for


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm("")


def raises(**context: object) -> bool:
    try:
        fault("a.point", **context)
    except Injected:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "happened"),
    [
        ("", [False] * 4),
        ("another.point=raise", [False] * 4),
        ("a.point=raise", [True] * 4),
        ("a.point:3=raise", [False, False, True, False]),
        ("a.point[n=1]=raise", [False, True, False, False]),
        ("a.point[n=1,m=x]=raise", [False, True, False, False]),
        ("a.point[n=1,m=y]=raise", [False] * 4),
        ("a.point[k=1]=raise", [False] * 4),
        ("a.point:1=raise; a.point[n=3]=raise", [True, False, False, True]),
    ],
)
def test_fault_happens_where_and_when_it_is_asked_for(text: str, happened: list[bool]) -> None:
    arm(text)
    assert [raises(n=n, m="x") for n in range(4)] == happened


def test_fault_with_a_file_happens_once_whoever_comes_first(tmp_path: Path) -> None:
    for _ in ("this process", "another"):
        arm(f"a.point=raise@{tmp_path}/done")
        happened = [raises() for _ in range(3)]
    assert happened == [False] * 3
    assert (tmp_path / "done").exists()


def test_fault_can_be_an_exception_of_any_class() -> None:
    arm("a.point=raise:pipeline.errors.StorageError")
    with pytest.raises(StorageError, match=r"a\.point"):
        fault("a.point")


def test_pause_lasts_until_its_file_is_written_to(tmp_path: Path) -> None:
    here = tmp_path / "here"
    arm(f"a.point=pause@{here}")
    paused = Thread(target=fault, args=("a.point",))
    paused.start()
    wait_for(here.exists)
    assert paused.is_alive()
    here.write_text("go on")
    paused.join(timeout=10)
    assert not paused.is_alive()
    fault("a.point")


@pytest.mark.parametrize("variable", [faults.VARIABLE, faults.FILE_VARIABLE])
def test_kill_is_a_sigkill_to_the_process_of_the_variable(variable: str, tmp_path: Path) -> None:
    told = "a.point=kill"
    (tmp_path / "faults").write_text(told)
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.faults import fault; fault('a.point')"],
        env={
            **os.environ,
            variable: told if variable == faults.VARIABLE else str(tmp_path / "faults"),
        },
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("text", ["a.point", "a.point=explode", "a.point:x=kill", "=kill"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="KOSMOS2_FAULTS"):
        arm(text)
