"""The frame of a derivation: each commit of a dataset, pruned, becomes a commit of the new one.

The new dataset has the plan of the source and the same samples in each shard: what was dropped is
among its rejections. So everything that reads a dataset also reads a derived one. The same command
resumes after an interruption, and adds what the source has committed since.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Protocol

import pyarrow as pa

from pipeline.concurrency import in_order
from pipeline.dataset.commit import (
    Committed,
    Rows,
    commit_bytes,
    commit_of,
    open_commit,
    read_commit,
    sorted_rows,
)
from pipeline.dataset.dataset import StoredDataset, check_identity, read_record, write_success
from pipeline.dataset.layout import (
    ANNOTATIONS,
    DERIVED_KEY,
    LISTINGS,
    PLANS,
    RECORD_KEY,
    SUCCESS_KEY,
    annotations_key,
)
from pipeline.dataset.leases import writing_to
from pipeline.dataset.ledger import COMMITS_PER_SUMMARY, Ledger, Totals
from pipeline.dataset.shards import Shard
from pipeline.derived.account import Account
from pipeline.errors import AlreadyExists, Conflict, SpecError, WrongIdentity
from pipeline.progress import ObserveShards
from pipeline.schema import REJECTION
from pipeline.spec.identity import Derivation, JobRecord
from pipeline.storage import OutputStore, StorageOptions

_SHARDS = 4  # shards at a time; each holds a file and its tables in memory, some 100 MB
_METADATA = "account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A pruned shard: `annotated` holds the kept rows in order, `rejected` the dropped ones."""

    annotated: pa.Table
    rejected: pa.Table
    account: Account


class Prune(Protocol):
    """A function that prunes the rows of a shard. Several threads call it."""

    def __call__(self, shard: Shard, rows: pa.Table) -> Pruned: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneStep:
    """Commits of the source, by shard id, that are pruned together.

    `prepare` is called once all earlier steps are done, if there is something to do. If the result
    depends on more than each commit, `settled` is a digest of that; it decides the commit ids.
    """

    commits: Mapping[str, Committed]
    prepare: Callable[[], AbstractContextManager[Prune]]
    settled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The new dataset as it is now. This call made `shards_new` of its shards.

    `account` counts all of it, `account_new` what this call made. `parameters` are the conditions,
    as in the identity of the dataset.
    """

    account: Account
    account_new: Account
    totals: Totals
    shards_new: int
    shards_planned: int
    parameters: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        return self.totals.shards == self.shards_planned


def derive(
    dataset: StoredDataset,
    destination: OutputStore,
    access: StorageOptions,
    derivation: Derivation,
    steps: Callable[[Mapping[str, Committed]], Sequence[PruneStep]],
    observe: ObserveShards = lambda done, of: None,
) -> Derived:
    """Make or resume the dataset in `destination` from the commits of `dataset`, step by step.

    `steps` is called once the lease is held, with the commits of `destination`.

    Raises SpecError if the destination holds anything else, or if `dataset` has replaced a commit
    that was already derived; LeaseHeld if another run writes to the destination.
    """
    if destination.uri == dataset.store.uri:
        raise SpecError(f"{dataset.store.uri} is both OUTPUT and DEST; choose another DEST")
    if read_record(destination) is None:
        _check_empty(destination)
    destination.probe()
    with writing_to(destination):
        record = _settle_record(dataset, destination, access, derivation)
        _copy_plan(dataset, destination)
        done = Ledger(destination).summaries()
        chosen = steps(done)
        _check_current(dataset, destination, record, chosen, done)
        making = [_Making(dataset, destination, record, step, done) for step in chosen]
        total, new = sum(len(each.todo) for each in making), Account()
        for number, of_shard in enumerate(chain.from_iterable(making), start=1):
            new.merge(of_shard)
            observe(number, total)
        account = _former_account(destination, done)
        account.merge(new)
        return _finish(dataset, destination, record, account, new, shards_new=total)


def _check_empty(destination: OutputStore) -> None:
    for folder in ("", ANNOTATIONS, PLANS):
        if found := destination.list(folder):
            raise SpecError(
                f"{destination.uri} is not empty ({found[0]}) and holds no dataset; choose another "
                "DEST, or empty it"
            )


def _settle_record(
    dataset: StoredDataset, destination: OutputStore, access: StorageOptions, derivation: Derivation
) -> JobRecord:
    """Return `job.json` of the new dataset; write it first if there is none."""
    identity = dataset.record.identity.derived_by(derivation)
    earlier = read_record(destination)
    if earlier is not None:
        _check_same_request(dataset, destination, derivation, earlier)
        check_identity(destination, identity, earlier)
        return earlier
    place = {
        "output": destination.uri,
        "output_endpoint_url": access.endpoint_url,
        "output_profile": access.profile,
        "output_storage_option": access.settings,
    }
    record = dataset.record.model_copy(
        update={
            "spec": dataset.record.spec.model_copy(update=place),
            "identity": identity,
            "fingerprint": identity.fingerprint,
            "source": dataset.store.uri,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    destination.create(RECORD_KEY, record.model_dump_json(indent=2).encode())
    return record


def _check_same_request(
    dataset: StoredDataset, destination: OutputStore, derivation: Derivation, earlier: JobRecord
) -> None:
    """Raise WrongIdentity if the same operation made the destination in another way."""
    steps = earlier.identity.derived
    if len(steps) != len(dataset.record.identity.derived) + 1:
        return
    last = steps[-1]
    if (last.operation, last.source_fingerprint) != (
        derivation.operation,
        derivation.source_fingerprint,
    ):
        return
    if last.parameters != derivation.parameters:
        raise WrongIdentity(
            f"{destination.uri} was made by {derivation.operation} with "
            f"{' '.join(last.parameters)}, not with {' '.join(derivation.parameters)}; use the "
            "same options, or choose another DEST"
        )
    if last.source_commits is not None:
        raise WrongIdentity(
            f"{destination.uri} was made by an earlier version, which kept no record of the images "
            "that it compared, so nothing can be added; choose another DEST"
        )


def _copy_plan(dataset: StoredDataset, destination: OutputStore) -> None:
    # Shards that are parts of a list of images need that list too.
    planned = {shard.listing for shard in dataset.plan.shards}
    lists = [key for key in dataset.store.list(LISTINGS) if key in planned]
    plans = dataset.store.list(PLANS)
    if set(plans) - set(destination.list(PLANS)):
        destination.delete(SUCCESS_KEY)  # written for a plan that was shorter then
    for key in [*lists, *plans]:
        data = dataset.store.get(key).data
        try:
            destination.create(key, data)
        except AlreadyExists as error:
            if destination.get(key).data != data:
                raise SpecError(
                    f"{destination.uri} has another plan than {dataset.store.uri}; choose another "
                    "DEST"
                ) from error


def _check_current(
    dataset: StoredDataset,
    destination: OutputStore,
    record: JobRecord,
    steps: Sequence[PruneStep],
    done: Mapping[str, Committed],
) -> None:
    """Raise SpecError if a shard that was already derived has been recommitted in the source."""
    expected = {
        shard_id: derived_commit_id(record, commit.commit_id, step.settled)
        for step in steps
        for shard_id, commit in step.commits.items()
    }
    for shard_id, commit in done.items():
        if expected.get(shard_id) != commit.commit_id:
            raise SpecError(
                f"{destination.uri} holds a derivation of {shard_id}, which was recommitted in "
                f"{dataset.store.uri} since; delete {annotations_key(shard_id)} and ledger/ of "
                "DEST, or choose another DEST"
            )


def derived_commit_id(record: JobRecord, source_commit_id: str, settled: str = "") -> str:
    """Return the id of a derived commit: it follows from all that decides its rows."""
    content = " ".join(filter(None, [record.fingerprint, source_commit_id, settled]))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes the shards of a step that are not `done`. Iterate over it for their accounts."""

    dataset: StoredDataset
    destination: OutputStore
    record: JobRecord
    step: PruneStep
    done: Mapping[str, Committed]

    @property
    def todo(self) -> list[Shard]:
        pending = self.step.commits.keys() - self.done.keys()
        return [shard for shard in self.dataset.plan.shards if shard.shard_id in pending]

    def __iter__(self) -> Iterator[Account]:
        """Commit the shards and yield the account of each, in order."""
        if not (shards := self.todo):
            return
        with (
            self.step.prepare() as prune,
            ThreadPoolExecutor(_SHARDS, thread_name_prefix="derive") as pool,
        ):
            calls = (partial(self._make, shard, prune) for shard in shards)
            yield from in_order(pool, calls, ahead=_SHARDS)

    def _make(self, shard: Shard, prune: Prune) -> Account:
        """Commit a derived shard and return its account."""
        schema = self.dataset.record.identity.schema_of_rows
        source = read_commit(self.dataset.store, shard.shard_id, schema)
        commit = self.step.commits[shard.shard_id]
        if source.committed.commit_id != commit.commit_id:
            raise Conflict(
                f"{self.dataset.store.uri}: {shard.shard_id} was recommitted while it was read; "
                "run the same command again to use the new commit"
            )
        pruned = prune(shard, source.rows.annotated)
        tables = [source.rows.rejected, pruned.rejected]
        rejected = sorted_rows(tables, REJECTION, self.record.spec.task_names)
        rows = Rows(annotated=pruned.annotated.combine_chunks(), rejected=rejected)
        committed = commit_of(
            rows,
            shard_id=shard.shard_id,
            samples=source.committed.samples,
            truncated=commit.truncated,
            commit_id=derived_commit_id(self.record, commit.commit_id, self.step.settled),
        )
        data = commit_bytes(
            self.destination,
            self.record,
            shard,
            rows,
            committed,
            source_commit_id=commit.commit_id,
            **{_METADATA: pruned.account.to_json()},
        )
        self.destination.create(annotations_key(shard.shard_id), data)
        return pruned.account


def _former_account(destination: OutputStore, done: Mapping[str, Committed]) -> Account:
    """Return the account of the shards that earlier calls committed."""

    def of_shard(shard_id: str) -> Account:
        with open_commit(destination, shard_id) as commit:
            return Account.from_json(commit.footer.said[_METADATA])

    account = Account()
    with ThreadPoolExecutor(_SHARDS) as pool:
        for each in pool.map(of_shard, sorted(done)):
            account.merge(each)
    return account


def _finish(
    dataset: StoredDataset,
    destination: OutputStore,
    record: JobRecord,
    account: Account,
    new: Account,
    *,
    shards_new: int,
) -> Derived:
    ledger = Ledger(destination)
    fresh = ledger.unsummarised(ledger.committed())
    for start in range(0, len(fresh), COMMITS_PER_SUMMARY):
        ledger.summarise(fresh[start : start + COMMITS_PER_SUMMARY])
    derived = Derived(
        account=account,
        account_new=new,
        totals=ledger.totals(),
        shards_new=shards_new,
        shards_planned=len(dataset.plan.shards),
        parameters=record.identity.derived[-1].parameters,
    )
    body = {
        "source": dataset.store.uri,
        **record.identity.derived[-1].model_dump(exclude_none=True),
        "fingerprint": record.fingerprint,
        "is_complete": derived.is_complete,
        "shards": derived.totals.shards,
        "shards_planned": derived.shards_planned,
        **derived.account.summary(),
    }
    destination.put(DERIVED_KEY, json.dumps(body, indent=2).encode())
    if derived.is_complete:
        write_success(destination, record, derived.totals)
    return derived
