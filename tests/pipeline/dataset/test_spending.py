"""The time of actors that no commit stands for: of runs in progress, ended and killed."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.costs.actor_time import ActorTime
from pipeline.dataset.layout import actor_time_key, lease_key
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import writing_to
from pipeline.dataset.spending import spent_before, time_in_no_commit
from pipeline.driver.tally import Tally
from pipeline.errors import CorruptOutput
from pipeline.progress import Progress
from pipeline.storage import OutputStore, open_output
from tests.support.leases import NO_PROCESS, abandoned
from tests.support.patience import wait_for

SOME, MORE = (ActorTime.of(held_s=seconds, busy_s=1.0, gpus=2) for seconds in (10.0, 20.0))


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


def progress_with(time: ActorTime) -> Progress:
    return replace(Tally().progress(), open_time=time)


def test_a_run_leaves_what_it_did_not_commit(store: OutputStore) -> None:
    with writing_to(store, progress=lambda: progress_with(SOME)):
        assert time_in_no_commit(store) == ActorTime()  # the first renewal is to come
    assert time_in_no_commit(store) == SOME
    with writing_to(store, progress=lambda: progress_with(MORE)):
        pass
    assert spent_before(store) == SOME.plus(MORE)


def test_a_run_in_progress_counts_once(store: OutputStore) -> None:
    lease = Lease(store, key=lease_key(), progress=lambda: progress_with(SOME), renew_s=0.02)
    lease.acquire()
    try:
        wait_for(lambda: time_in_no_commit(store) == SOME)
        store.put(actor_time_key(lease.run_id), b'{"held_s": 1, "busy_s": 1, "gpu_held_s": 1, '
                  b'"gpu_busy_s": 1}')  # fmt: skip
        assert time_in_no_commit(store).held_s == 1.0
    finally:
        lease.release()


def test_what_a_killed_run_held_is_kept_by_the_one_that_takes_over(store: OutputStore) -> None:
    body = abandoned(pid=NO_PROCESS, progress=progress_with(SOME))
    store.create(lease_key(), body)
    assert time_in_no_commit(store) == SOME
    for _ in range(2):  # it counts once
        with writing_to(store):
            pass
        assert time_in_no_commit(store) == SOME


def test_a_lease_names_no_other_file(store: OutputStore) -> None:
    body = abandoned(pid=NO_PROCESS, run_id="../job", progress=progress_with(SOME))
    store.create(lease_key(), body)
    with writing_to(store):
        pass
    assert store.list("") == store.list("actor_time/") == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"held_s": 1}', b'{"held_s": "x"}'])
def test_a_damaged_count_is_named(store: OutputStore, body: bytes) -> None:
    store.put(actor_time_key("a" * 12), body)
    with pytest.raises(CorruptOutput, match=r"actor_time/a{12}\.json is not a count.*delete it"):
        time_in_no_commit(store)
