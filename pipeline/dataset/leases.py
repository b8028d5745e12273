"""The leases of an output together: one for each partition that somebody is at work on."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from pipeline.dataset.layout import LEASES, lease_key, partition_of
from pipeline.dataset.lease import Lease
from pipeline.errors import LeaseHeld
from pipeline.progress import Progress
from pipeline.spec.partition import WHOLE, Partition
from pipeline.storage import OutputStore

_WATCHED = 32  # leases at a time; a silent one is watched for half a minute


@contextmanager
def writing_to(
    store: OutputStore,
    partition: Partition = WHOLE,
    progress: Callable[[], Progress | None] = lambda: None,
) -> Iterator[Lease]:
    """Holds the lease of `partition`.

    Raises LeaseHeld where a live run is at work on shards of it. Of two overlapping ones that
    begin at once at least one is refused, perhaps both; others do not mind each other.
    """
    lease = Lease(store, key=lease_key(partition), progress=progress)
    lease.acquire()
    try:
        # Ours is there by now: whoever looks later sees it.
        _check_overlapping(store, partition)
        yield lease
    finally:
        lease.release()


def _check_overlapping(store: OutputStore, mine: Partition) -> None:
    """Removes leases of dead runs, so that the next starter need not watch them."""
    others = [key for key in store.list(LEASES) if key != lease_key(mine)]
    keys = [key for key in others if (part := partition_of(key)) is None or part.overlaps(mine)]
    with ThreadPoolExecutor(_WATCHED, thread_name_prefix="watch") as pool:
        for _ in pool.map(lambda key: _remove_if_dead(store, key, mine), keys):
            pass


def _remove_if_dead(store: OutputStore, key: str, mine: Partition) -> None:
    """Raises LeaseHeld where its owner lives."""
    lease = Lease(store, key=key)
    try:
        lease.acquire()
    except LeaseHeld as held:
        raise LeaseHeld(f"{held} ({partition_of(key) or key} shares shards with {mine})") from None
    lease.release()
