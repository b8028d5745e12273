"""Checks of one commit: its files against the plan and the job."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import CommitFooter, Committed, read_rejects, row_keys
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.originals import annotated_images, images_of_commit
from pipeline.dataset.shards import Shard
from pipeline.errors import CorruptOutput, ObjectMissing
from pipeline.parquet import ParquetFile, read_parquet
from pipeline.spec.identity import JobRecord
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import OutputStore
from pipeline.verification.findings import Defect, Finding, reason_of
from pipeline.verification.rows import wrong_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCommit:
    """The result of a check.

    `committed` is None if the file is gone or does not describe itself.
    """

    committed: Committed | None
    rejects: str  # the file that the commit names; "" for none
    findings: tuple[Finding, ...]


def check_commit(
    store: OutputStore, record: JobRecord, shard_id: str, shard: Shard | None
) -> CheckedCommit:
    """Check a commit; `shard` is None if the plan does not have it. Raises StorageError."""
    key = annotations_key(shard_id)
    try:
        file = read_parquet(key, store.get(key).data)
    except ObjectMissing:  # deleted since it was listed
        return CheckedCommit(committed=None, rejects="", findings=())
    except CorruptOutput as error:
        finding = Finding(defect=Defect.COMMIT_DAMAGED, name=key, message=reason_of(error))
        return CheckedCommit(committed=None, rejects="", findings=(finding,))
    footer = CommitFooter(shard_id=shard_id, said=file.metadata)
    check = _Check(store, record, shard, file, footer)
    committed = _committed(footer)
    return CheckedCommit(
        committed=committed, rejects=check.rejects, findings=tuple(check.findings(committed))
    )


def _committed(footer: CommitFooter) -> Committed | None:
    try:
        return footer.committed()
    except (LookupError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Check:
    store: OutputStore
    record: JobRecord
    shard: Shard | None
    file: ParquetFile
    footer: CommitFooter

    @property
    def rejects(self) -> str:
        return self.footer.said.get("rejects", "")

    def findings(self, committed: Committed | None) -> Iterator[Finding]:
        if self.shard is None:
            yield self._finding(Defect.COMMIT_UNPLANNED, "the plan has no such shard")
        for message in self.footer.contradictions(self.record, self.shard):
            yield self._finding(Defect.WRONG_PROVENANCE, message)
        if committed is None:
            yield self._finding(Defect.WRONG_COUNTS, "its metadata have no row counts")
            return
        if not self.file.table.schema.equals(self.record.identity.schema_of_rows):
            yield self._finding(Defect.WRONG_SCHEMA, "its columns are not those of this version")
            return
        if self.file.row_groups and not self.file.table.num_rows:
            message = "it has a row group without rows, which Hugging Face datasets cannot load"
            yield self._finding(Defect.EMPTY_ROW_GROUP, message)
        for wrong in wrong_rows(self.file.table, input_size=self._input_size()):
            row = self.file.table.slice(wrong.rows[0], 1)
            message = f"index {row['index'][0]}, task {row['task'][0]}: {wrong.message}"
            yield self._finding(wrong.defect, message, len(wrong.rows))
        yield from self._rows(committed)

    def _rows(self, committed: Committed) -> Iterator[Finding]:
        """Check the primary keys of annotations and rejects together."""
        try:
            rejected = read_rejects(self.store, self.rejects)
        except ObjectMissing:
            yield self._finding(Defect.REJECTS_MISSING, f"{self.rejects} does not exist")
            return
        except CorruptOutput as error:
            yield self._finding(Defect.REJECTS_DAMAGED, f"{self.rejects}: {reason_of(error)}")
            return
        tables = (self.file.table, rejected)
        if (committed.annotated, committed.rejected) != tuple(t.num_rows for t in tables):
            yield self._finding(
                Defect.WRONG_COUNTS,
                f"it holds {tables[0].num_rows} annotations and {tables[1].num_rows} rejections, "
                f"but its metadata say {committed.annotated} and {committed.rejected}",
            )
        yield from self._keys(committed.samples, tables)
        foreign = sum(self._foreign(table) for table in tables)
        if foreign:
            yield self._finding(Defect.ROWS_FOREIGN, "rows of another shard or input", foreign)
        yield from self._copies()

    def _copies(self) -> Iterator[Finding]:
        """Check that copies have the bytes of their originals, where these are committed here."""
        try:
            copies = self.footer.copies()
        except (AttributeError, LookupError, TypeError, ValueError):
            yield self._finding(Defect.WRONG_PROVENANCE, "its list of copies cannot be read")
            return
        tasks = len(self.record.spec.task)
        own = annotated_images(self.file.table, tasks) if copies else {}
        by_original = defaultdict[str, dict[int, int]](dict)
        for index, original in copies.items():
            if not original.output:
                by_original[original.shard_id][index] = original.index
        wrong = list[int]()
        for shard_id, indices in by_original.items():
            try:
                images = images_of_commit(self.store, shard_id, tasks)
            except (ObjectMissing, CorruptOutput):
                continue  # not committed, or damaged, which is found there
            wrong += [
                index
                for index, original_index in indices.items()
                if index not in own or own[index] != images.get(original_index)
            ]
        if wrong:
            index = min(wrong)
            message = f"index {index} is not a copy of {copies[index].shard_id}"
            message += f"/{copies[index].index}, whose answers it has"
            yield self._finding(Defect.WRONG_COPY, message, len(wrong))

    def _keys(self, samples: int, tables: Sequence[pa.Table]) -> Iterator[Finding]:
        found = Counter(key for table in tables for key in row_keys(table))
        wanted = set(product(range(samples), self.record.spec.task_names))
        for defect, keys in (
            (Defect.ROWS_MISSING, wanted - found.keys()),
            (Defect.ROWS_FOREIGN, found.keys() - wanted),
            (Defect.ROWS_TWICE, {key for key, count in found.items() if count > 1}),
        ):
            if keys:
                index, task = min(keys)
                yield self._finding(defect, f"index {index}, task {task}", len(keys))

    def _foreign(self, table: pa.Table) -> int:
        uri = self.shard.uri if self.shard else self.footer.said.get("input_uri", "")
        ours = pc.equal(table["shard_id"], self.footer.shard_id)
        # Listed images have separate URIs.
        if self.shard is None or self.shard.kind not in LISTED_KINDS:
            ours = pc.and_(ours, pc.equal(table["uri"], uri))
        return sum(not is_ours for is_ours in ours.to_pylist())

    def _input_size(self) -> int:
        """Return the size of the input that holds the images; no limit for listed images."""
        is_one = self.shard is not None and self.shard.kind not in LISTED_KINDS
        return self.shard.size_bytes if self.shard and is_one else 2**63 - 1

    def _finding(self, defect: Defect, message: str, rows: int = 0) -> Finding:
        return Finding(
            defect=defect, name=annotations_key(self.footer.shard_id), message=message, rows=rows
        )
