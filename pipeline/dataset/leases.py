"""The leases of an output: one for each partition that a run is writing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from pipeline.dataset.layout import LEASES, lease_key, partition_of
from pipeline.dataset.lease import Lease, Owner, read_lease
from pipeline.errors import LeaseHeld
from pipeline.progress import Progress
from pipeline.spec.partition import WHOLE, Partition
from pipeline.storage import OutputStore

_WATCHED = 32  # leases watched at a time; a silent one is watched for half a minute


@contextmanager
def writing_to(
    store: OutputStore,
    partition: Partition = WHOLE,
    progress: Callable[[], Progress | None] = lambda: None,
) -> Iterator[Lease]:
    """Hold the lease of `partition`.

    Raises LeaseHeld if a live run writes shards of it. If two overlapping runs start at once, at
    least one is refused, perhaps both. Runs on disjoint partitions do not affect each other.
    """
    lease = Lease(store, key=lease_key(partition), progress=progress)
    lease.acquire()
    try:
        # This lease exists by now, so a run that looks later sees it.
        _check_overlapping(store, partition)
        yield lease
    finally:
        lease.release()


def owners(store: OutputStore) -> list[Owner]:
    """Return the holders of leases that are not known to be dead."""
    leases = (read_lease(store, key) for key in store.list(LEASES))
    return [lease.owner for lease in leases if lease and not lease.owner.is_dead_here()]


def _check_overlapping(store: OutputStore, mine: Partition) -> None:
    """Raise LeaseHeld if an overlapping run is alive; remove the leases of dead ones.

    The next run need not watch the removed ones.
    """
    others = [key for key in store.list(LEASES) if key != lease_key(mine)]
    keys = [key for key in others if (part := partition_of(key)) is None or part.overlaps(mine)]
    with ThreadPoolExecutor(_WATCHED, thread_name_prefix="watch") as pool:
        for _ in pool.map(lambda key: _remove_if_dead(store, key, mine), keys):
            pass


def _remove_if_dead(store: OutputStore, key: str, mine: Partition) -> None:
    """Remove a lease whose owner is gone. Raises LeaseHeld if the owner is alive."""
    lease = Lease(store, key=key)
    try:
        lease.acquire()
    except LeaseHeld as held:
        raise LeaseHeld(f"{held} ({partition_of(key) or key} shares shards with {mine})") from None
    lease.release()
