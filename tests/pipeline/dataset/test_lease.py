"""Who is writing to an output."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from os import getpid
from pathlib import Path
from socket import gethostname
from threading import Barrier

import psutil
import pytest

from pipeline.dataset import lease as leasing
from pipeline.dataset.layout import lease_key
from pipeline.dataset.lease import Lease, Owner, read_lease
from pipeline.driver.tally import Tally
from pipeline.errors import LeaseHeld
from pipeline.faults import arm
from pipeline.progress import Progress
from pipeline.storage import OutputStore, open_output
from tests.support.leases import NO_PROCESS, abandoned

KEY = lease_key()
RENEW_S = 0.05
SOON_S = 10.0
PROGRESS = Tally(shards_total=7, shards_done=3, started=0.0).progress()


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "out")
    return f"s3://{request.getfixturevalue('s3_bucket')}/out"


@pytest.fixture
def store(output: str) -> OutputStore:
    return open_output(output)


def lease(
    store: OutputStore,
    *,
    renew_s: float = RENEW_S,
    takeover_s: float = 30.0,
) -> Lease:
    return Lease(store, key=KEY, progress=lambda: PROGRESS, renew_s=renew_s, takeover_s=takeover_s)


@contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def owner(store: OutputStore) -> Owner:
    state = read_lease(store, KEY)
    assert state is not None
    return state.owner


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- one holder


def test_it_is_there_from_acquire_to_release(store: OutputStore) -> None:
    assert read_lease(store, KEY) is None
    with held(lease(store)) as first:
        found = owner(store)
        assert found == replace(Owner.this_process(), run_id=found.run_id)
        assert not first.is_lost
    assert read_lease(store, KEY) is None
    with held(lease(store)):
        assert owner(store).run_id != found.run_id


def test_its_body_carries_the_progress(store: OutputStore) -> None:
    with held(lease(store)):
        wait_until(lambda: read_lease(store, KEY).progress is not None)
        assert read_lease(store, KEY).progress == PROGRESS


def test_a_second_run_beside_a_living_one_is_refused(store: OutputStore) -> None:
    with held(lease(store)) as first:
        second = lease(store)
        started = time.monotonic()
        with pytest.raises(LeaseHeld, match=f"{gethostname()}, pid {getpid()} "):
            second.acquire()
        second.release()
        assert time.monotonic() - started < SOON_S
        assert not first.is_lost
        assert read_lease(store, KEY) is not None


def test_of_many_that_start_at_once_one_holds_it(store: OutputStore) -> None:
    assert race(store) == 1


def test_of_many_that_find_a_dead_holder_one_takes_it(store: OutputStore) -> None:
    store.create(KEY, abandoned(pid=NO_PROCESS))
    assert race(store) == 1


def race(store: OutputStore) -> int:
    start = Barrier(8)

    def starter(_: int) -> Lease | None:
        mine = lease(store)
        start.wait()
        try:
            mine.acquire()
        except LeaseHeld:
            return None
        return mine

    with ThreadPoolExecutor(8) as pool:
        holders = [one for one in pool.map(starter, range(8)) if one is not None]
    lost = [holder.is_lost for holder in holders]
    for holder in holders:
        holder.release()
    assert not any(lost)
    return len(holders)


# ---- takeover


HOLD = """
import sys, time
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import lease_key
from pipeline.storage import open_output
Lease(open_output(sys.argv[1]), key=lease_key(), progress=lambda: None, renew_s=0.05).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("is_reaped", [True, False], ids=["gone", "zombie"])
def test_a_killed_holder_on_this_machine_is_followed_at_once(
    local: OutputStore, is_reaped: bool
) -> None:
    """Its process tells that it is dead; the store has no part in it."""
    command = [sys.executable, "-c", HOLD, local.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert owner(local).pid == holder.pid
        holder.kill()
        if is_reaped:
            holder.wait()
        else:
            wait_until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_ZOMBIE)
        started = time.monotonic()
        with held(lease(local)):
            assert time.monotonic() - started < SOON_S
            assert owner(local).pid == getpid()


@pytest.mark.parametrize(
    "changes",
    [{"pid": NO_PROCESS}, {"process_started": 1.0}],
    ids=["no such process", "its pid is used again"],
)
def test_a_dead_holder_on_this_machine_is_followed_at_once(
    store: OutputStore, changes: dict[str, object]
) -> None:
    store.create(KEY, abandoned(**changes))
    started = time.monotonic()
    with held(lease(store)):
        assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize(
    "changes",
    [{"machine": "another", "pid": NO_PROCESS}, {"machine": "another"}, {}],
    ids=["elsewhere", "elsewhere, same pid", "here, but hanging"],
)
def test_a_silent_holder_is_followed_after_a_while(
    store: OutputStore, changes: dict[str, object]
) -> None:
    store.create(KEY, abandoned(**changes))
    started = time.monotonic()
    with held(lease(store, takeover_s=0.5)) as follower:
        assert time.monotonic() - started >= 0.5
        assert not follower.is_lost
        assert owner(store).machine == Owner.this_process().machine


def test_a_living_holder_elsewhere_is_not_followed(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(leasing, "_machine", lambda: "another")
        first = lease(store)
    with held(first):
        assert owner(store).machine == "another"
        with pytest.raises(LeaseHeld):
            lease(store, takeover_s=5.0).acquire()


def test_a_lease_that_is_released_while_it_is_watched_is_free(store: OutputStore) -> None:
    store.create(KEY, abandoned(machine="another"))
    with ThreadPoolExecutor(1) as pool:
        follower = lease(store)
        waiting = pool.submit(follower.acquire)
        time.sleep(0.2)
        store.delete(KEY)
        waiting.result(timeout=SOON_S)
    follower.release()


# ---- loss


@pytest.mark.parametrize(
    "loss",
    [lambda store: store.put(KEY, abandoned(machine="another")), lambda store: store.delete(KEY)],
    ids=["taken over", "deleted"],
)
def test_a_lost_lease_is_noticed_and_left_alone(
    store: OutputStore, loss: Callable[[OutputStore], None]
) -> None:
    with held(lease(store)) as first:
        loss(store)
        after = read_lease(store, KEY)
        wait_until(lambda: first.is_lost)
    assert read_lease(store, KEY) == after


def test_a_lease_that_was_lost_unnoticed_is_left_alone_too(store: OutputStore) -> None:
    with held(lease(store, renew_s=60.0)):
        store.put(KEY, abandoned(machine="another"))
    assert owner(store).machine == "another"


def test_lease_of_another_version_is_watched_like_any_other(tmp_path: Path) -> None:
    store = open_output(str(tmp_path))
    store.create(KEY, b'{"owner": {"name": "of old"}}')
    assert read_lease(store, KEY) is None
    lease = Lease(store, key=KEY, takeover_s=0.2)
    lease.acquire()
    assert read_lease(store, KEY) is not None
    lease.release()


@pytest.mark.parametrize("error", ["builtins.ValueError", "pipeline.errors.StorageError"])
def test_an_error_in_a_renewal_costs_that_renewal_only(store: OutputStore, error: str) -> None:
    arm(f"lease.renew:1=raise:{error}")
    with held(lease(store)) as first:
        wait_until(lambda: read_lease(store, KEY).beat > 0)
        assert not first.is_lost
    arm("")


def test_an_error_in_the_progress_costs_that_renewal_only(store: OutputStore) -> None:
    asked = count()

    def progress() -> Progress:
        if next(asked) == 0:
            raise RuntimeError("dictionary changed size during iteration")
        return PROGRESS

    with held(Lease(store, key=KEY, progress=progress, renew_s=RENEW_S)) as first:
        wait_until(lambda: read_lease(store, KEY).progress == PROGRESS)
        assert not first.is_lost
