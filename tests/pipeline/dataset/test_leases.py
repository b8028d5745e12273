"""Runs of several partitions on one output."""

import time
from concurrent.futures import ThreadPoolExecutor
from os import getpid
from threading import Barrier

import pytest

from pipeline.dataset.layout import lease_key, partition_of
from pipeline.dataset.lease import Lease
from pipeline.dataset.leases import writing_to
from pipeline.errors import LeaseHeld
from pipeline.spec.partition import WHOLE, Partition
from pipeline.storage import Fetched, OutputStore
from tests.support.leases import NO_PROCESS, abandoned

SOON_S = 10.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed often, so that a live owner shows soon."""
    init = Lease.__init__

    def quick(self: Lease, store: OutputStore, **options: object) -> None:
        init(self, store, **{"renew_s": 0.05, **options})

    monkeypatch.setattr(Lease, "__init__", quick)


def part(text: str) -> Partition:
    return Partition.parse(text)


@pytest.mark.parametrize("text", ["0/1", "3/4"])
def test_a_lease_is_named_for_its_part(text: str) -> None:
    assert partition_of(lease_key(part(text))) == part(text)


def test_a_strangers_file_is_no_lease_of_a_part() -> None:
    assert partition_of("leases/notes.json") is None


def test_disjoint_parts_run_side_by_side(store: OutputStore) -> None:
    with writing_to(store, part("0/3")), writing_to(store, part("1/3")) as second:
        with writing_to(store, part("2/3")):
            assert store.list("leases/") == [f"leases/{n}-of-3.json" for n in range(3)]
        assert not second.is_lost
    assert store.list("leases/") == []


@pytest.mark.parametrize(
    ("at_work", "comes"),
    [("1/4", "1/4"), ("0/1", "1/4"), ("1/4", "0/1"), ("1/2", "3/4"), ("3/4", "1/2")],
)
def test_parts_that_share_shards_do_not(store: OutputStore, at_work: str, comes: str) -> None:
    with writing_to(store, part(at_work)) as first:
        with (
            pytest.raises(LeaseHeld, match=f"another run is writing to it.* pid {getpid()}"),
            writing_to(store, part(comes)),
        ):
            pytest.fail("both are at work")
        assert store.list("leases/") == [lease_key(part(at_work))]
        assert not first.is_lost


def test_who_is_refused_hears_which_parts_share_shards(store: OutputStore) -> None:
    with (
        writing_to(store, part("1/2")),
        pytest.raises(LeaseHeld, match="1/2 shares shards with 3/4"),
        writing_to(store, part("3/4")),
    ):
        pass


def test_leases_of_dead_runs_over_the_same_shards_are_removed(store: OutputStore) -> None:
    for text in ("0/1", "1/2", "2/4"):
        store.create(lease_key(part(text)), abandoned(pid=NO_PROCESS))
    started = time.monotonic()
    with writing_to(store, part("0/4")):
        left = [lease_key(part(text)) for text in ("0/4", "1/2", "2/4")]
        assert store.list("leases/") == left
    assert time.monotonic() - started < SOON_S


def test_silent_runs_elsewhere_are_watched_at_once(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[str] = []
    barrier = Barrier(3, timeout=SOON_S)

    def abandoned_lease(lease: Lease) -> Fetched:
        watched.append(lease._key)
        barrier.wait()  # breaks if one is watched after another
        return store.get(lease._key)

    for number in range(3):
        store.create(lease_key(Partition(index=number, of=3)), abandoned(machine="another"))
    monkeypatch.setattr(Lease, "_abandoned", abandoned_lease)
    with writing_to(store):
        assert store.list("leases/") == [lease_key()]
    assert len(watched) == 3


@pytest.mark.parametrize("texts", [["0/1", "1/2"], ["0/1", "0/2", "1/2"], ["1/2", "3/4", "0/1"]])
def test_of_overlapping_ones_that_begin_at_once_never_two_are_at_work(
    store: OutputStore, texts: list[str]
) -> None:
    start, held = Barrier(len(texts)), Barrier(len(texts))

    def run(mine: Partition) -> Partition | None:
        start.wait()
        try:
            with writing_to(store, mine):
                held.wait()  # until all have got it or were refused
                return mine
        except LeaseHeld:
            held.wait()
            return None

    with ThreadPoolExecutor(len(texts)) as pool:
        at_work = [one for one in pool.map(run, map(part, texts)) if one is not None]
    assert not [(a, b) for a in at_work for b in at_work if a != b and a.overlaps(b)]
    assert store.list("leases/") == []
    with writing_to(store, WHOLE):
        pass
