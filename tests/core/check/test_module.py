"""`python -m kosmos2_core.check`, also where only the core is installed."""

import json

import pytest

from kosmos2_core.check import run
from kosmos2_core.check.__main__ import main
from tests.support.checks import TINY
from tests.support.core_alone import run_with_core_alone

_CHECK = """
import runpy, sys
from kosmos2_core.check import run
from tests.support.checks import TINY

run.EXTENTS["cpu"] = TINY
run.BLOCKS = [each for each in run.BLOCKS if each.name == "tokens"]  # test_check.py runs all
sys.argv[1:] = ["--device", "cpu", "--json"]
sys.exit(runpy.run_module("kosmos2_core.check.__main__", run_name="__main__"))
"""


@pytest.mark.slow  # what it shows beyond test_architecture.py are the imports of transformers
def test_it_needs_no_package_of_the_job() -> None:
    done = run_with_core_alone(_CHECK)
    assert done.returncode == 0, done.stderr
    assert_is_one_report(done.stdout, done.stderr, "tokens")


def test_it_prints_one_report_and_what_it_does_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(run.EXTENTS, "cpu", TINY)
    monkeypatch.setattr(run, "BLOCKS", [each for each in run.BLOCKS if each.name == "machine"])
    assert main(["--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    assert_is_one_report(printed.out, printed.err, "machine")


def assert_is_one_report(out: str, err: str, block: str) -> None:
    assert json.loads(out)["is_complete"]
    first, *others = err.splitlines()  # none of them is a library's
    assert first.startswith(f"{block}: passed")
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
