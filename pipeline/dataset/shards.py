"""Shards and the plan: the inputs of a dataset, frozen by the first run.

A shard is one input file, a range of its rows, or a range of a list of images. Its id is stable
across runs and machines: a readable stem and a hash of what identifies the shard. The plan is
stored in `plan/<generation>.parquet`, create-only: of two first runs, the loser uses the winner's
plan.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline.dataset.layout import PLANS, plan_key
from pipeline.errors import AlreadyExists, CorruptOutput, SpecError
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.schema import PLAN, PLAN_OF_TARS
from pipeline.spec.kinds import InputKind
from pipeline.spec.partition import Partition
from pipeline.storage import ObjectInfo, OutputStore
from pipeline.storage.ignored import Ignored
from pipeline.storage.objects import is_text

_ROWS_AT_ONCE = 10_000  # rows converted to dictionaries at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A unit of work: the object at `uri` as it was when planned, or a part of it.

    For a folder, `uri` is the folder and the other fields describe the list of its images. If
    `count` is set, the shard is the rows [first, first + count) of that object, or of the list
    `listing` beside the plan; `part_bytes` estimates the size of that part. `only` holds the
    positions of the samples to annotate while the others stay as they are committed; None means all
    samples, and is what the plan always holds.
    """

    shard_id: str
    uri: str
    size_bytes: int
    etag: str
    kind: InputKind = "webdataset"
    listing: str | None = None
    first: int = 0
    count: int | None = None
    part_bytes: int | None = None
    only: tuple[int, ...] | None = None

    @property
    def source(self) -> ObjectInfo:
        return ObjectInfo(uri=self.uri, size_bytes=self.size_bytes, etag=self.etag)

    @property
    def own_bytes(self) -> int:
        """Number of input bytes of this shard."""
        return self.size_bytes if self.part_bytes is None else self.part_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The frozen shards. `ignored` lists what planning found under the input and did not read."""

    shards: tuple[Shard, ...]
    generations: int
    ignored: tuple[Ignored, ...] = field(default=(), compare=False)

    def part(self, partition: Partition) -> tuple[Shard, ...]:
        """Return the shards of a partition, in the order of the plan."""
        return tuple(shard for shard in self.shards if partition.holds(shard.shard_id))


def shard_of(source: ObjectInfo, kind: InputKind = "webdataset") -> Shard:
    """Make a shard of a whole object. Raises SpecError for a name that Parquet cannot hold."""
    check_encodable(source.uri)
    return Shard(
        shard_id=shard_id(source.uri),
        uri=source.uri,
        size_bytes=source.size_bytes,
        etag=source.etag,
        kind=kind,
    )


def shard_of_rows(
    source: ObjectInfo,
    kind: InputKind,
    *,
    first: int,
    count: int,
    part_bytes: int,
    listing: str | None = None,
) -> Shard:
    """Make a shard of a part of an object. Raises SpecError as `shard_of` does."""
    check_encodable(source.uri)
    return Shard(
        shard_id=_id(source.uri, f"-{first:07d}", f"{source.uri}#{listing or ''}#{first}+{count}"),
        uri=source.uri,
        size_bytes=source.size_bytes,
        etag=source.etag,
        kind=kind,
        listing=listing,
        first=first,
        count=count,
        part_bytes=part_bytes,
    )


def check_encodable(uri: str) -> None:
    """Raise SpecError for a name that Parquet cannot hold."""
    if not is_text(uri):
        shown = uri.encode("utf-8", "backslashreplace").decode()
        raise SpecError(f"{shown} cannot be planned: its name is not valid UTF-8; rename it")


def shard_id(uri: str) -> str:
    """Return the id of a shard: `s3://bucket/a/part-0001.tar` -> `part-0001-3f2a9c0d11ab`."""
    return _id(uri, "", uri)


def _id(uri: str, place: str, hashed: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePosixPath(uri).name.split(".")[0])
    # Arrow, Spark and Hive skip files that begin with "_".
    stem = stem.strip("_-")[:60] or "shard"
    return f"{stem}{place}-{hashlib.sha256(hashed.encode()).hexdigest()[:12]}"


def load_plan(store: OutputStore) -> ShardPlan | None:
    """Read the frozen plan, all generations in order; return None if there is none yet."""
    names = store.list(PLANS)
    if not names:
        return None
    shards = [shard for name in names for shard in read_generation(store, name)]
    return ShardPlan(shards=tuple(shards), generations=len(names))


def read_generation(store: OutputStore, key: str) -> list[Shard]:
    """Read one generation of the plan. Raises CorruptOutput."""
    table = read_parquet(key, store.get(key).data).table
    if not (table.schema.equals(PLAN) or table.schema.equals(PLAN_OF_TARS)):
        raise CorruptOutput(
            f"{store.uri}/{key} does not have the columns that this version writes; "
            "use the version that wrote it, or another output"
        )
    return [
        Shard(**{name: value for name, value in row.items() if value is not None})
        for some in table.to_batches(max_chunksize=_ROWS_AT_ONCE)
        for row in some.to_pylist()
    ]


def shard_table(shards: Sequence[Shard], schema: pa.Schema | None = None) -> pa.Table:
    """Return a table of the shards, with all fields or those of `schema`.

    Dictionaries of 100,000 shards would take too much memory.
    """
    names = schema.names if schema is not None else [field.name for field in fields(Shard)]
    return pa.table({n: [getattr(shard, n) for shard in shards] for n in names}, schema=schema)


def freeze_plan(store: OutputStore, shards: Sequence[Shard]) -> ShardPlan:
    """Write the first generation, or return the plan that another run wrote first."""
    return _add_generation(store, 0, shards, ())


def extend_plan(store: OutputStore, plan: ShardPlan, shards: Iterable[Shard]) -> ShardPlan:
    """Write one more generation with the shards that the plan does not have."""
    planned = {(shard.shard_id, shard.uri) for shard in plan.shards}
    new = [shard for shard in shards if (shard.shard_id, shard.uri) not in planned]
    return _add_generation(store, plan.generations, new, plan.shards) if new else plan


def _add_generation(
    store: OutputStore, generation: int, new: Sequence[Shard], old: Sequence[Shard]
) -> ShardPlan:
    _check_distinct([*old, *new])
    table = shard_table(new, PLAN)
    try:
        store.create(plan_key(generation), parquet_bytes(table))
    except AlreadyExists:
        winner = load_plan(store)
        assert winner is not None, "a plan that exists can be read"
        return winner
    return ShardPlan(shards=(*old, *new), generations=generation + 1)


def _check_distinct(shards: Sequence[Shard]) -> None:
    seen: dict[str, str] = {}
    for shard in shards:
        if (other := seen.setdefault(shard.shard_id, shard.uri)) != shard.uri:
            raise SpecError(f"{other} and {shard.uri} have the same shard id; rename one of them")
