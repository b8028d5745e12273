"""The status of a dataset as storage shows it: its progress, its runs, and how a job ended."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipeline.costs.costs import Costs
from pipeline.costs.throughput import Timed, throughput_of
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.dataset.layout import ANNOTATIONS, LEASES, partition_of, shard_id_of
from pipeline.dataset.lease import read_lease
from pipeline.dataset.ledger import Failure, Ledger, Totals
from pipeline.dataset.reject_rate import is_mostly_rejects
from pipeline.dataset.spending import costs_of_dataset
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, StorageOptions

_TOP_REASONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The progress of a dataset.

    `running` holds the leases, one per partition in use: owner and progress of each run, and
    `owner_is_dead` where that is certain. `images_left` is estimated from the images per byte so
    far. `costs` is None for a dataset that `filter` or `dedup` made. `pace` is in images per
    second, in equal parts of the time in which runs worked, from the times of commits.
    """

    output: str
    fingerprint: str
    shards_planned: int
    shards_left: int
    totals: Totals
    images_left: int | None
    reject_reasons: dict[str, int]
    failures: tuple[Failure, ...]
    running: tuple[dict[str, Any], ...]
    costs: Costs | None
    pace: tuple[float, ...]

    @property
    def is_running(self) -> bool:
        return any(not run["owner_is_dead"] for run in self.running)


def read_status(
    output: str, options: StorageOptions, *, gpu_hour_cost: float | None = None
) -> Status:
    """Read the status of a dataset.

    `gpu_hour_cost` is the price of one GPU hour; None takes that of the job. Raises ObjectMissing
    if there is no dataset, StorageError.
    """
    dataset = open_dataset(output, options)
    ledger = Ledger(dataset.store)
    times = dataset.store.times(ANNOTATIONS)
    ids = {key: shard_id for key in times if (shard_id := shard_id_of(key)) is not None}
    commits = ledger.summaries(set(ids.values()))
    totals, failures = Totals.of(commits.values()), ledger.failed(commits.keys())
    closed = commits.keys() | failures.keys()
    done = sum(shard.own_bytes for shard in dataset.plan.shards if shard.shard_id in commits)
    left = sum(shard.own_bytes for shard in dataset.plan.shards if shard.shard_id not in closed)
    reasons: Counter[str] = Counter()
    for commit in commits.values():
        reasons.update(commit.reasons)
    return Status(
        output=dataset.store.uri,
        fingerprint=dataset.record.fingerprint,
        shards_planned=len(dataset.plan.shards),
        shards_left=len(dataset.plan.shards) - totals.shards - len(failures),
        totals=totals,
        images_left=round(totals.samples * left / done) if done else None,
        reject_reasons=dict(reasons.most_common(_TOP_REASONS)),
        failures=tuple(failures.values()),
        running=tuple(_runs(dataset.store)),
        costs=costs_of_dataset(dataset, commits.values(), failures, gpu_hour_cost),
        pace=_pace(
            {key: commits[shard_id].samples for key, shard_id in ids.items()}, times, dataset
        ),
    )


def _pace(
    images: Mapping[str, int], times: Mapping[str, datetime], dataset: StoredDataset
) -> tuple[float, ...]:
    timed = [Timed(at=times[key], images=count) for key, count in images.items()]
    found = throughput_of(timed, datetime.fromisoformat(dataset.record.created_at))
    return found.bins if found else ()


def _runs(store: OutputStore) -> Iterator[dict[str, Any]]:
    for key in store.list(LEASES):
        if (lease := read_lease(store, key)) is not None:
            is_dead = lease.owner.is_dead_here()
            partition = str(partition_of(key) or key)
            yield {"partition": partition, **asdict(lease), "owner_is_dead": is_dead}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Counts of the shards that a job wanted, committed and failed."""

    shards_wanted: int
    shards_committed: int
    shards_failed: int
    is_mostly_rejects: bool

    @property
    def exit_code(self) -> ExitCode | None:
        """The exit code of a run that ended in this state; None if shards are left."""
        if self.shards_committed == self.shards_wanted and not self.is_mostly_rejects:
            return ExitCode.DONE
        if self.shards_committed + self.shards_failed == self.shards_wanted:
            return ExitCode.SHARDS_FAILED
        return None


def outcome_of(spec: JobSpec) -> Outcome:
    """Read how a job ended. Raises ObjectMissing if there is no dataset, StorageError."""
    dataset = open_dataset(spec.output, spec.output_storage)
    ledger = Ledger(dataset.store)
    commits = ledger.summaries()
    failed = ledger.failed(commits.keys())
    wanted = {shard.shard_id for shard in dataset.plan.part(spec.partition)[: spec.limit]}
    totals = Totals.of(commits.values())
    return Outcome(
        shards_wanted=len(wanted),
        shards_committed=len(wanted & commits.keys()),
        shards_failed=len(wanted & failed.keys()),
        is_mostly_rejects=is_mostly_rejects(
            annotated=totals.annotated,
            rejected=totals.rejected,
            max_reject_rate=spec.max_reject_rate,
        ),
    )
