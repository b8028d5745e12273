"""Jobs of many shards: what they ask of the store. The figures are for `kosmos2 bench scale`."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.bench.scale import COMMITTED
from jobs.bench.world import (
    IMAGES_PER_SHARD,
    commit_most,
    forget_reads,
    make_inputs,
    scale_spec,
    were_read,
)
from jobs.cli import run_command
from pipeline.dataset import dataset as job
from pipeline.dataset.ledger import COMMITS_PER_SUMMARY, Ledger
from pipeline.dataset.shards import load_plan
from pipeline.dataset.status import read_status
from pipeline.driver.pending import Pending
from pipeline.storage import OutputStore, StorageOptions, open_output

SHARDS = 600
LEFT = round(SHARDS * (1 - COMMITTED))
SUMMARISED = COMMITS_PER_SUMMARY


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of 600 shards; all but six are committed, and the last of those not summarised."""
    root = str(tmp_path_factory.mktemp("scale"))
    make_inputs(root, SHARDS)
    assert commit_most(root, COMMITTED) == LEFT
    return root


class Counting:
    """A store that counts what is asked of it, by method and folder."""

    def __init__(self, store: OutputStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def counted(key: str = "", *arguments: object) -> object:
            self.calls[f"{name} {key.partition('/')[0]}"] += 1
            return found(key, *arguments) if key else found(*arguments)

        return counted


@pytest.fixture
def counting(world: str) -> Counting:
    return Counting(open_output(scale_spec(world).output))


def test_what_is_left_is_known_from_three_requests(counting: Counting) -> None:
    plan = load_plan(counting)
    assert plan is not None
    work = Pending.of(plan.shards, Ledger(counting))
    assert (len(work.wanted), len(work.left), len(work.committed)) == (SHARDS, LEFT, SHARDS - LEFT)
    assert counting.calls == {
        "list plan": 1,
        "get plan": 1,
        "list annotations": 1,
        "list failed": 1,
    }


def test_a_resumed_run_opens_only_commits_that_no_summary_has(counting: Counting) -> None:
    ledger = Ledger(counting)
    committed = ledger.committed()
    counting.calls.clear()
    assert len(ledger.unsummarised(committed)) == len(committed) - SUMMARISED
    assert counting.calls.pop("open annotations") == len(committed) - SUMMARISED
    assert counting.calls == {"list ledger": 2, "get ledger": 1}


def test_status_opens_only_commits_that_no_summary_has(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "open_output", lambda *_: counting)
    found = read_status(counting.uri, StorageOptions())
    assert (found.shards_planned, found.shards_left) == (SHARDS, LEFT)
    assert found.totals.samples == SUMMARISED * IMAGES_PER_SHARD
    assert counting.calls.pop("open annotations") == SHARDS - LEFT - SUMMARISED
    assert sum(counting.calls.values()) < 12


def test_a_file_that_is_read_is_noticed(world: str) -> None:
    spec = scale_spec(world)
    forget_reads(spec)
    assert were_read(spec) == set()
    one = sorted(Path(world).rglob("*.tar"))[500]
    one.read_bytes()
    assert were_read(spec) == {f"file://{one}"}


RESUME = """
import json, sys
from dataclasses import asdict
from jobs.bench.scale import resume
if __name__ == "__main__":
    print(json.dumps(asdict(resume(sys.argv[1]))))
"""


@pytest.mark.slow
def test_a_resumed_run_reads_no_byte_of_what_is_committed(world: str, tmp_path: Path) -> None:
    (tmp_path / "resume.py").write_text(RESUME)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "resume.py"), world],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["committed_inputs_read"], found["left_inputs_read"]) == (0, LEFT)
    store = open_output(scale_spec(world).output)
    assert len(Ledger(store).committed()) == SHARDS
    assert json.loads(store.get("_SUCCESS.json").data)["shards"] == SHARDS


@pytest.mark.parametrize("arguments", [["--shards", "99"], ["--shards", "1000", "--shards", "5"]])
def test_too_few_shards_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", "scale", *arguments]) == 2
    assert "100 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_prints_its_figures() -> None:
    arguments = ["bench", "scale", "--shards", "100", "--shards", "300", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["shards"], run["left"]) for run in runs] == [(100, 1), (300, 3)]
    for run in runs:
        assert (run["committed_inputs_read"], run["left_inputs_read"]) == (0, run["left"])
        for step in ("plan", "graph", "resume", "finish", "status"):
            assert run[step]["seconds"] > 0
            assert run[step]["cpu_s"] > 0
            assert run[step]["peak_mb"] > 50
