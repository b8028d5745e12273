"""`kosmos2 status` of outputs in every state."""

import json
import os
import threading
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import pytest

from jobs.cli import run_command
from jobs.commands import status as showing
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.layout import annotations_key, lease_key
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import writing_to
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import extend_plan
from pipeline.dataset.status import read_status
from pipeline.driver.tally import Tally
from pipeline.progress import Progress
from pipeline.spec.partition import Partition
from pipeline.storage import StorageOptions, open_output
from tests.support.commits import write_dataset
from tests.support.patience import wait_for
from tests.support.tars import an_annotation, pictures


@pytest.fixture
def output(tmp_path: Path) -> str:
    """One of two equal shards is committed, with one of its three images rejected."""
    write_dataset(
        tmp_path,
        {
            "a.tar": ([*pictures(2), ("z.jpg", b"no picture")], [[an_annotation()]] * 2),
            "b.tar": (pictures(3), None),
        },
    )
    return str(tmp_path / "out")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def page(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(["status", output]) == 0
    return " ".join(capsys.readouterr().out.split())


def some_progress() -> Progress:
    tally = Tally(shards_total=2, shards_done=1, actor_resources="1 CPU, 0.5 GPU")
    tally.add_images(annotated=5, rejected=1)
    tally.note_usage("node-1/17/ab", images=6, busy_s=3, span_s=4)
    now = tally.progress()
    load = replace(now.load, drivers=4)
    return replace(now, eta_s=3725.0, images_per_s=7.0, images_per_s_now=9.0, load=load)


def test_images_left_and_reasons_are_known_without_a_run(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = read_status(output, StorageOptions())
    assert (status.totals.samples, status.images_left) == (3, 3)
    assert sum(status.reject_reasons.values()) == status.totals.rejected == 1
    assert not status.is_running
    [reason] = status.reject_reasons
    assert f"1x {reason}" in page(output, capsys)


def test_images_left_are_by_the_share_of_a_file_that_a_shard_is(tmp_path: Path) -> None:
    """A large file is many shards: each counts for its part alone."""
    job = write_dataset(tmp_path, {"a.tar": (pictures(3), [[an_annotation()]] * 3)})
    [done] = job.plan.shards
    parts = [
        replace(done, shard_id=f"part-{i}", uri="file:///large", part_bytes=done.size_bytes)
        for i in range(4)
    ]
    extend_plan(job.store, job.plan, [replace(part, size_bytes=10**9) for part in parts])
    assert read_status(str(tmp_path / "out"), StorageOptions()).images_left == 12


def test_reasons_are_the_same_with_and_without_summaries(output: str) -> None:
    store = open_output(output)
    before = read_status(output, StorageOptions()).reject_reasons
    ledger = Ledger(store)
    ledger.rebuild([])
    assert read_status(output, StorageOptions()).reject_reasons == before
    ledger.summarise(ledger.unsummarised(ledger.committed()))
    assert ledger.summarised()
    assert read_status(output, StorageOptions()).reject_reasons == before


def test_a_run_at_work_shows_its_pace_and_its_actors(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Lease(open_output(output), key=lease_key(), progress=some_progress, renew_s=0.02)
    lease.acquire()
    try:
        while (read_status(output, StorageOptions()).running[0]["progress"]) is None:
            threading.Event().wait(0.02)
        shown = page(output, capsys)
    finally:
        lease.release()
    assert lease.run_id in shown
    assert "9.0 now, 7.0 on average" in shown
    assert "about 1:02:05" in shown
    assert "node-1/17/ab" in shown
    assert "asked for 1 CPU, 0.5 GPU" in shown
    assert "engine 75% busy" in shown
    assert "none is full: engines 75% busy" in shown
    assert "drivers │ 4" in shown


def test_each_partition_at_work_is_shown(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [Partition(index=index, of=4) for index in (1, 3)]
    store = open_output(output)
    with writing_to(store, parts[0]), writing_to(store, parts[1]):
        running = read_status(output, StorageOptions()).running
        shown = page(output, capsys)
    assert [run["partition"] for run in running] == ["1/4", "3/4"]
    assert "part 1/4: " in shown
    assert "part 3/4: " in shown


def test_watching_ends_with_the_run(
    output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(open_output(output), key=lease_key())
    lease.acquire()
    monkeypatch.setattr(showing.time, "sleep", lambda seconds: lease.release())
    assert run_command(["status", output, "--watch", "--json"]) == 0
    first, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [run["owner"]["run_id"] for run in first["running"]] == [lease.run_id]
    assert last["running"] == []


@pytest.fixture
def watched(output: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An output whose run ends after the first look of `--watch`."""
    lease = Lease(open_output(output), key=lease_key(), progress=some_progress, renew_s=0.02)
    lease.acquire()
    wait_for(lambda: read_status(output, StorageOptions()).running[0]["progress"] is not None)
    monkeypatch.setattr(showing.time, "sleep", lambda seconds: lease.release())
    return output


def test_watching_prints_a_line_each_time_where_there_is_no_terminal(
    watched: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["status", watched, "--watch"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("1 of 2 shards, 3 images, images/s: 9.0 now, 7.0 on average, time left")
    assert "limit: none is full: engines 75% busy" in first
    assert last == "1 of 2 shards, 3 images"


def test_watching_redraws_one_screen_on_a_terminal(
    watched: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert run_command(["status", watched, "--watch"]) == 0
    out = capsys.readouterr().out
    assert out.count("1 of 2 shards, 50%") >= 2
    assert "\x1b[1A" in out  # the cursor goes up
    assert "\u2501" * 10 in out


def test_ctrl_c_ends_watching_at_once(
    output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(open_output(output), key=lease_key())
    lease.acquire()

    def interrupt(seconds: float) -> None:
        assert seconds == 7.5
        raise KeyboardInterrupt

    monkeypatch.setattr(showing.time, "sleep", interrupt)
    assert run_command(["status", output, "--watch", "--every", "7.5"]) == 0
    lease.release()
    out, err = capsys.readouterr()
    assert out.splitlines() == ["1 of 2 shards, 3 images"]
    assert err == ""


def test_the_pace_is_from_the_times_of_commits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = (pictures(3), [[an_annotation()]] * 3)
    job = write_dataset(tmp_path, {f"{i}.tar": one for i in range(8)})
    began = datetime.fromisoformat(job.record.created_at).timestamp()
    gaps = [10.0, 10.0, 10.0, 10.0, 2.0, 2.0, 2.0, 2.0]
    for shard, at in zip(job.plan.shards, accumulate(gaps), strict=True):
        path = tmp_path / "out" / annotations_key(shard.shard_id)
        os.utime(path, (began + at, began + at))
    slow, fast = read_status(str(tmp_path / "out"), StorageOptions()).pace
    assert (slow, fast) == pytest.approx((6 / 24, 18 / 24))
    assert "0.2 to 0.8 images/s" in page(str(tmp_path / "out"), capsys)


def test_no_text_of_an_input_controls_the_terminal(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;title\x07 \x9b31m \u202egpj"
    failed = ShardFailed(
        shard_id="b-1", error_type="input_changed", message=hostile, retriable=False
    )
    Ledger(open_output(output)).record_failure(failed)
    assert run_command(["status", output]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert r"\u001b]0;title\u0007" in shown
