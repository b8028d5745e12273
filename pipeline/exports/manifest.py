"""The manifest of an export: the commit of each shard that it holds, and the files that hold it.

The same command on a finished export adds the shards that are new, if the manifest shows that the
others are still what was exported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.dataset.layout import EXPORT_SHARDS_KEY
from pipeline.errors import CorruptOutput, ObjectMissing, SpecError
from pipeline.exports.coverage import Coverage
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.storage import OutputStore

_SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("commit_id", pa.string(), nullable=False),
        pa.field("section", pa.int32(), nullable=False),
        pa.field("files", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedShard:
    """A shard as it was exported.

    `files` are those that hold its annotations with other ones. Files of single images are not
    listed: their names begin with the shard's id.
    """

    shard_id: str
    commit_id: str
    section: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerExport:
    """A finished export to which new shards can be added. `files` counts those in its folders."""

    export_id: str
    shards: tuple[ExportedShard, ...]
    coverage: Coverage
    files: int
    size_bytes: int

    @property
    def next_section(self) -> int:
        return 1 + max((shard.section for shard in self.shards), default=0)


def write_manifest(store: OutputStore, shards: Iterable[ExportedShard]) -> None:
    """Write the manifest. Raises StorageError."""
    rows = [asdict(shard) for shard in shards]
    store.put(EXPORT_SHARDS_KEY, parquet_bytes(pa.Table.from_pylist(rows, schema=_SCHEMA)))


def read_manifest(store: OutputStore) -> tuple[ExportedShard, ...]:
    """Read the manifest. Raises ObjectMissing, CorruptOutput."""
    data = store.get(EXPORT_SHARDS_KEY).data
    rows = read_parquet(EXPORT_SHARDS_KEY, data, _SCHEMA).table.to_pylist()
    return tuple(ExportedShard(**{**row, "files": tuple(row["files"])}) for row in rows)


def former_export(
    store: OutputStore,
    export_id: str,
    details: Mapping[str, Any],
    settings: Mapping[str, Any],
    commits: Mapping[str, str],
) -> FormerExport:
    """Return a finished export, if the same command made it and its shards are what they were.

    `details` are those of its record, `settings` those of the command, `commits` the commit ids in
    the source by shard id. Raises SpecError, naming what differs.
    """
    former = details.get("settings", {})
    if differing := [name for name, value in settings.items() if former.get(name) != value]:
        raise _refused(store, f"another {differing[0]}")
    try:
        shards = read_manifest(store)
        coverage = Coverage.of_summary(details["coverage"])
        files, size_bytes = details["section_files"], details["section_bytes"]
    except (ObjectMissing, CorruptOutput, LookupError, TypeError) as error:
        raise _refused(store, f"no list of its shards that can be read ({error})") from error
    changed = [each for each in shards if commits.get(each.shard_id) != each.commit_id]
    if changed:
        raise _refused(
            store,
            f"an earlier state of {len(changed)} shards ({changed[0].shard_id}), which were "
            "annotated again since",
        )
    return FormerExport(
        export_id=export_id, shards=shards, coverage=coverage, files=files, size_bytes=size_bytes
    )


def _refused(store: OutputStore, what: str) -> SpecError:
    return SpecError(
        f"{store.uri} holds a finished export with {what}; choose another DEST, or replace it with "
        "--overwrite"
    )


def shards_in_files(
    commits: Sequence[tuple[str, str]], files: Mapping[str, Sequence[str]], section: int
) -> tuple[ExportedShard, ...]:
    """Return the exported shards of a section.

    `commits` are (shard id, commit id) in order; `files` has the shard ids of each file.
    """
    of_shard: dict[str, list[str]] = {shard_id: [] for shard_id, _ in commits}
    for name, shard_ids in files.items():
        for shard_id in shard_ids:
            of_shard[shard_id].append(name)
    return tuple(
        ExportedShard(
            shard_id=shard_id,
            commit_id=commit_id,
            section=section,
            files=tuple(of_shard[shard_id]),
        )
        for shard_id, commit_id in commits
    )
