"""The rounds of a deduplication: the commits of the source whose images were compared together.

A round is settled by `rounds/<number>.parquet`, before its first shard is committed. So a round
that was interrupted is finished with the same decisions, whatever the source has committed since;
what is new makes the next round. What an earlier round kept stays.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.dataset.layout import DEDUP_ROUNDS, round_key
from pipeline.errors import CorruptOutput, SpecError
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.schema import ROUND
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore

_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The ids of the source's commits, by shard id.

    `settled` is a digest of this round and of all earlier ones, which decide what it keeps.
    """

    commit_ids: Mapping[str, str]
    settled: str


def has_rounds(record: JobRecord) -> bool:
    """Return whether a dataset was made by `dedup`, but not by a version that wrote no rounds."""
    last = record.identity.derived[-1:]
    return any(step.operation == "dedup" and step.source_commits is None for step in last)


def read_rounds(store: OutputStore) -> list[Round]:
    """Read all rounds of a deduplicated dataset, in order. Raises CorruptOutput, SpecError."""
    names = store.list(DEDUP_ROUNDS)
    for number, name in enumerate(names):
        if name != round_key(number):
            raise CorruptOutput(f"{round_key(number)} is missing; restore it from a backup")
    rounds = list[Round]()
    for name in names:
        file = read_parquet(name, store.get(name).data, ROUND)
        if (version := file.metadata.get("version")) != _VERSION:
            raise SpecError(
                f"{store.uri}/{name} has version {version}, not {_VERSION}; use the version of "
                "kosmos2 that wrote it, or choose another DEST"
            )
        rounds.append(_next(rounds, dict(zip(*file.table.to_pydict().values(), strict=True))))
    return rounds


def add_round(store: OutputStore, rounds: Sequence[Round], commit_ids: Mapping[str, str]) -> Round:
    """Settle the next round. The caller holds the lease. Raises AlreadyExists."""
    table = pa.table([list(commit_ids), list(commit_ids.values())], schema=ROUND)
    store.create(round_key(len(rounds)), parquet_bytes(table, {"version": _VERSION}))
    return _next(rounds, commit_ids)


def _next(rounds: Sequence[Round], commit_ids: Mapping[str, str]) -> Round:
    before = rounds[-1].settled if rounds else ""
    content = f"{before} {sorted(commit_ids.items())}"
    return Round(commit_ids=commit_ids, settled=hashlib.sha256(content.encode()).hexdigest()[:16])
