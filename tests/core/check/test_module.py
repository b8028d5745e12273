"""`python -m kosmos2_core.check` where only the core is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kosmos2_core.check.__main__ import main

ROOT = Path(__file__).parents[3]
_WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

ABSENT = {"ray", "pipeline", "jobs", "cyclopts", "pydantic", "rich", "pyarrow", "fsspec", "s3fs"}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ABSENT else super().find_spec(name, path, target)

sys.meta_path = [Without if each is PathFinder else each for each in sys.meta_path]
from kosmos2_core.check import run
from tests.support.checks import TINY

run.EXTENTS["cpu"] = TINY
run.BLOCKS = [each for each in run.BLOCKS if each.name == "tokens"]  # test_check.py runs all
sys.argv[1:] = ["--device", "cpu", "--json"]
sys.exit(runpy.run_module("kosmos2_core.check.__main__", run_name="__main__"))
"""


def test_it_needs_no_package_of_the_job() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["is_complete"]
    first, *others = done.stderr.splitlines()  # none of them is a library's
    assert first.startswith("tokens: passed")
    assert all(line.startswith(("  ", "verdict: ")) for line in others)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "no device 'tpu'"),
        (["--model", "no/where/at/all"], "no checkpoint at"),
        (["--output", "/no/where/at.json"], "/no/where/at.json: No such file or directory; name"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
