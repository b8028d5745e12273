"""The time of actors that a dataset took: in its commits, and beside them.

A commit stands for the time since the one before it. For what a run has not committed when it ends,
see `Lease`.
"""

import json
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline.costs.actor_time import ActorTime, total_time
from pipeline.costs.costs import Costs, PaidShard, costs_of
from pipeline.dataset.commit import Committed
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import ACTOR_TIMES, LEASES, actor_time_key
from pipeline.dataset.lease import read_lease
from pipeline.dataset.ledger import READERS, Ledger
from pipeline.errors import CorruptOutput
from pipeline.storage import OutputStore


def time_in_no_commit(store: OutputStore) -> ActorTime:
    """Read the time that no commit stands for, of ended runs and of those that hold a lease.

    Raises CorruptOutput, StorageError.
    """
    leases = [lease for key in store.list(LEASES) if (lease := read_lease(store, key)) is not None]
    keys = store.list(ACTOR_TIMES)
    with ThreadPoolExecutor(READERS) as pool:
        ended = list(pool.map(lambda key: _read(store, key), keys))
    now = [
        lease.progress.open_time
        for lease in leases
        if lease.progress and actor_time_key(lease.owner.run_id) not in keys
    ]
    return total_time([*ended, *now])


def spent_before(store: OutputStore) -> ActorTime:
    """Read the time of all earlier runs. Raises CorruptOutput, StorageError."""
    commits = Ledger(store).summaries().values()
    known = (commit.actor_time for commit in commits if commit.actor_time is not None)
    return total_time([time_in_no_commit(store), *known])


def costs_of_dataset(
    dataset: StoredDataset,
    commits: Collection[Committed],
    failed: Iterable[str],
    gpu_hour_cost: float | None = None,
) -> Costs | None:
    """Return the costs of a dataset with these commits; None if it was derived from another.

    `failed` shards will not be committed. `gpu_hour_cost` None takes that of the job. Raises
    CorruptOutput, StorageError.
    """
    if dataset.record.source is not None:
        return None
    sizes = {shard.shard_id: shard.own_bytes for shard in dataset.plan.shards}
    price = dataset.record.spec.gpu_hour_cost if gpu_hour_cost is None else gpu_hour_cost
    closed = {commit.shard_id for commit in commits} | set(failed)
    return costs_of(
        [
            PaidShard(
                images=commit.samples,
                size_bytes=sizes.get(commit.shard_id, 0),
                time=commit.actor_time,
            )
            for commit in commits
        ],
        time_in_no_commit(dataset.store),
        bytes_left=sum(size for shard_id, size in sizes.items() if shard_id not in closed),
        gpu_hour_cost=price,
    )


def _read(store: OutputStore, key: str) -> ActorTime:
    try:
        return ActorTime.from_dict(json.loads(store.get(key).data))
    except (LookupError, ValueError, TypeError) as error:
        raise CorruptOutput(
            f"{store.uri}/{key} is not a count of an actor's time; delete it: then that time does "
            "not count"
        ) from error
