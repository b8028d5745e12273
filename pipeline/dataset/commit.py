"""The commit of a shard: its annotations file and the rejects file that it names.

No other module reads or writes this format.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Self, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.costs.actor_time import ActorTime
from pipeline.dataset.layout import annotations_key, rejects_key
from pipeline.dataset.shards import Shard
from pipeline.errors import AlreadyExists, PipelineError
from pipeline.parquet import footer_metadata, opened, parquet_bytes, read_parquet
from pipeline.schema import ANNOTATION, REJECTION, Original
from pipeline.spec.identity import JobRecord
from pipeline.spec.kinds import InputKind
from pipeline.storage import OutputStore
from pipeline.version import our_version

_REJECTS_LOGGED = 5

CopiesByIndex: TypeAlias = Mapping[int, Original]  # the original of a sample, by its index
RowKey: TypeAlias = tuple[int, str]  # index and task: the key of a row within its shard


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSample:
    """A rejected sample for the log. The rejects file has all the details."""

    index: int
    key: str
    task: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed shard.

    `is_ours` is False if the shard was already committed and was left unchanged.
    """

    shard_id: str
    commit_id: str
    samples: int
    annotated: int
    rejected: int
    truncated: bool
    reasons: Mapping[str, int] = field(default_factory=dict)  # rejections by `error_type`
    actor_time: ActorTime | None = None  # None: an earlier version made it, or `filter` or `dedup`
    is_ours: bool = True
    copies: int = field(default=0, compare=False)  # samples with the answers to another image
    put_s: float = field(default=0.0, compare=False)
    rejected_samples: tuple[RejectedSample, ...] = field(default=(), compare=False)  # the first few


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFailed:
    shard_id: str
    error_type: str
    message: str
    retriable: bool

    @classmethod
    def by(cls, shard_id: str, error: PipelineError) -> Self:
        """Return the failure of a shard that an error ended."""
        return cls(
            shard_id=shard_id,
            error_type=error.code,
            message=str(error),
            retriable=error.retriable,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one shard, in order."""

    annotated: pa.Table
    rejected: pa.Table


def row_keys(table: pa.Table) -> list[RowKey]:
    return list(zip(table["index"].to_pylist(), table["task"].to_pylist(), strict=True))


def sorted_rows(tables: Sequence[pa.Table], schema: pa.Schema, tasks: Sequence[str]) -> pa.Table:
    """Return one table, sorted by position and then by the order of `tasks`."""
    table = pa.concat_tables([schema.empty_table(), *tables])
    order = pc.index_in(table["task"], pa.array(tasks, pa.string()))
    by = table.append_column("order", order).sort_by(
        [("index", "ascending"), ("order", "ascending")]
    )
    return by.drop_columns(["order"]).combine_chunks()


# Writing


def commit_of(
    rows: Rows,
    *,
    shard_id: str,
    samples: int,
    truncated: bool,
    commit_id: str | None = None,
    actor_time: ActorTime | None = None,
) -> Committed:
    """Describe a commit of these rows, with a new commit id unless one is given."""
    named = rows.rejected.slice(0, _REJECTS_LOGGED).select(["index", "key", "task", "error_type"])
    return Committed(
        shard_id=shard_id,
        commit_id=commit_id or uuid.uuid4().hex,
        samples=samples,
        annotated=rows.annotated.num_rows,
        rejected=rows.rejected.num_rows,
        truncated=truncated,
        reasons=dict(Counter(rows.rejected["error_type"].to_pylist()).most_common()),
        rejected_samples=tuple(RejectedSample(**row) for row in named.to_pylist()),
        actor_time=actor_time,
    )


def commit_bytes(
    store: OutputStore,
    record: JobRecord,
    shard: Shard,
    rows: Rows,
    committed: Committed,
    copies: CopiesByIndex = MappingProxyType({}),
    /,
    **provenance: str,
) -> bytes:
    """Write the rejects file; return the bytes of the annotations file that names it."""
    metadata = {
        **job_metadata(record),
        **_shard_metadata(shard),
        "samples": str(committed.samples),
        "annotated": str(committed.annotated),
        "rejected": str(committed.rejected),
        "truncated": str(committed.truncated).lower(),
        "reasons": committed.reasons,
        "rejects": _write_rejects(store, record, committed.shard_id, rows.rejected),
        "commit_id": committed.commit_id,
        **({"copies": _copies_by_original(copies)} if copies else {}),
        **_time_metadata(committed.actor_time),
        **provenance,
    }
    return parquet_bytes(rows.annotated, metadata)


def _copies_by_original(copies: CopiesByIndex) -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Return (index, index of the original) by the original's output and shard."""
    found = dict[str, dict[str, list[tuple[int, int]]]]()
    for index, original in sorted(copies.items()):
        shards = found.setdefault(original.output, {})
        shards.setdefault(original.shard_id, []).append((index, original.index))
    return found


def _write_rejects(store: OutputStore, record: JobRecord, shard_id: str, rejected: pa.Table) -> str:
    """Write the rejects file and return its key, or "" if nothing was rejected."""
    if not rejected.num_rows:
        return ""
    data = parquet_bytes(rejected, job_metadata(record))
    key = rejects_key(shard_id, data)
    with suppress(AlreadyExists):  # an earlier attempt wrote the same
        store.create(key, data)
    return key


def job_metadata(record: JobRecord) -> dict[str, object]:
    derived = [step.model_dump(exclude_none=True) for step in record.identity.derived]
    return {
        "schema_version": str(record.identity.schema_version),
        "fingerprint": record.fingerprint,
        "checkpoint_id": record.model.id,
        "checkpoint_commit": record.model.commit or "",
        "weights_digest": record.model.weights_digest,
        "tasks": [task.model_dump(exclude_defaults=True) for task in record.identity.tasks],
        "dtype": record.identity.dtype,
        "software_version": our_version(),
        **({"derived": derived} if derived else {}),
    }


def _time_metadata(actor_time: ActorTime | None) -> dict[str, object]:
    return {} if actor_time is None else {"actor_time": asdict(actor_time)}


def _shard_metadata(shard: Shard) -> dict[str, object]:
    """Describe the input of a shard. Sample `index` of a part is row `input_first` + `index`."""
    whole = {
        "input_uri": shard.uri,
        "input_etag": shard.etag,
        "input_size": str(shard.size_bytes),
    }
    if shard.kind == "webdataset":
        return {**whole}
    count = "" if shard.count is None else str(shard.count)
    part = {"input_kind": shard.kind, "input_first": str(shard.first), "input_count": count}
    return {**whole, **part}


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFooter:
    """The metadata of an annotations file, as strings."""

    shard_id: str
    said: Mapping[str, str]

    @property
    def rejects(self) -> str:
        """Key of the rejects file, or "" if there is none. Raises KeyError."""
        return self.said["rejects"]

    def committed(self) -> Committed:
        """Parse the totals of the commit. Raises LookupError, ValueError."""
        return Committed(
            shard_id=self.shard_id,
            commit_id=self.said["commit_id"],
            samples=int(self.said["samples"]),
            annotated=int(self.said["annotated"]),
            rejected=int(self.said["rejected"]),
            truncated=self.said["truncated"] == "true",
            reasons=json.loads(self.said.get("reasons", "{}")),  # earlier versions wrote none
            actor_time=self._actor_time(),
        )

    def copies(self) -> CopiesByIndex:
        """Return the originals of the samples whose answers were not computed for them.

        Raises LookupError, TypeError, ValueError.
        """
        found: dict[str, dict[str, list[tuple[int, int]]]] = json.loads(
            self.said.get("copies", "{}")
        )
        return {
            index: Original(output=output, shard_id=shard_id, index=original)
            for output, shards in found.items()
            for shard_id, pairs in shards.items()
            for index, original in pairs
        }

    def _actor_time(self) -> ActorTime | None:
        said = self.said.get("actor_time")
        return None if said is None else ActorTime.from_dict(json.loads(said))

    def shard(self) -> Shard:
        """Return the shard of this commit.

        A shard of listed images comes without its list: each row names its image.
        """
        count = self.said.get("input_count", "")
        return Shard(
            shard_id=self.shard_id,
            uri=self.said["input_uri"],
            size_bytes=int(self.said["input_size"]),
            etag=self.said["input_etag"],
            kind=cast(InputKind, self.said.get("input_kind", "webdataset")),
            first=int(self.said.get("input_first", 0)),
            count=int(count) if count else None,
        )

    def contradictions(self, record: JobRecord, shard: Shard | None) -> Iterator[str]:
        """Describe where the metadata contradicts the job record or the plan."""
        names = ["schema_version", "fingerprint", "weights_digest"]
        expected = job_metadata(record)
        if shard is not None:
            names += ["input_uri", "input_etag", "input_size"]
            expected |= _shard_metadata(shard)
        for name in [name for name in names if self.said.get(name) != expected[name]][:1]:
            yield f"{name} is {self.said.get(name)}, not {expected[name]}"
        if not re.fullmatch("[0-9a-f]{32}", self.said.get("commit_id", "")):
            yield "no commit id"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCommit:
    parquet: pq.ParquetFile
    footer: CommitFooter


@contextmanager
def open_commit(store: OutputStore, shard_id: str) -> Iterator[OpenCommit]:
    """Open the annotations file of a shard to read parts of it.

    Raises ObjectMissing, CorruptOutput.
    """
    with opened(store, annotations_key(shard_id)) as file, pq.ParquetFile(file) as parquet:
        footer = CommitFooter(shard_id=shard_id, said=footer_metadata(parquet.metadata))
        yield OpenCommit(parquet=parquet, footer=footer)


@contextmanager
def open_rejects(store: OutputStore, key: str) -> Iterator[pq.ParquetFile]:
    """Open a rejects file to read parts of it. Raises ObjectMissing, CorruptOutput."""
    with opened(store, key) as file, pq.ParquetFile(file) as parquet:
        yield parquet


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerCommit:
    """A commit as it is stored. A rewrite succeeds only if the file still has this `etag`."""

    key: str
    etag: str
    committed: Committed
    rows: Rows
    copies: CopiesByIndex


def read_commit(store: OutputStore, shard_id: str, schema: pa.Schema = ANNOTATION) -> FormerCommit:
    """Read the commit of a shard. Raises ObjectMissing, CorruptOutput."""
    key = annotations_key(shard_id)
    data, etag = store.get(key)
    file = read_parquet(key, data, schema)
    footer = CommitFooter(shard_id=shard_id, said=file.metadata)
    rows = Rows(annotated=file.table, rejected=read_rejects(store, footer.rejects))
    return FormerCommit(
        key=key, etag=etag, committed=footer.committed(), rows=rows, copies=footer.copies()
    )


def read_rejects(store: OutputStore, key: str) -> pa.Table:
    """Read a rejects file; the key "" means no rejects. Raises ObjectMissing, CorruptOutput."""
    if not key:
        return REJECTION.empty_table()
    return read_parquet(key, store.get(key).data, REJECTION).table
