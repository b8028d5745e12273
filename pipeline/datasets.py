"""A dataset for Python: the commands on a dataset, as methods.

Methods import what only they need, so that `status` loads neither Ray, DuckDB nor pandas.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import open_commit, read_rejects
from pipeline.dataset.dataset import StoredDataset, known_record, open_dataset
from pipeline.dataset.leases import owners, writing_to
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.status import Status, read_status
from pipeline.progress import ObserveShards, Progress
from pipeline.schema import COPIES, REJECTION
from pipeline.spec.identity import JobRecord
from pipeline.storage import InputStore, OutputStore, StorageOptions, open_output

if TYPE_CHECKING:
    import pyarrow.dataset as pds

    from pipeline.comparison.diff import Differences
    from pipeline.derived.deriving import Derived
    from pipeline.driver.verdict import Verdict
    from pipeline.exports.coverage import Coverage
    from pipeline.verification.outputs import Report

_ROWS = 8192  # rows per batch


def _ignore(*amounts: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that `run` has begun, finished or not. Open one with `Dataset.open`.

    Each method reads the storage again and sees what is committed at that moment.

    Attributes:
        uri: Directory or `s3://` prefix of the dataset.
        access: Endpoint and profile of its store.
        store: The store that contains it.
        record: The job: options, model and identity, as in `job.json`.

    Example:
        >>> dataset = Dataset.open("out")
        >>> dataset.status().shards_left
        0
        >>> table = dataset.rows(columns=["key", "caption"]).to_table()
        >>> table.column_names, table.num_rows
        (['key', 'caption'], 2)
        >>> coverage = dataset.export("coco", format="coco")
    """

    uri: str
    access: StorageOptions
    store: OutputStore
    record: JobRecord

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        endpoint_url: str | None = None,
        profile: str | None = None,
        storage_option: Sequence[str] = (),
    ) -> Self:
        """Open the dataset at a directory or `s3://` prefix.

        Args:
            uri: Directory or `s3://` prefix of the dataset.
            endpoint_url: S3 endpoint of the dataset. None takes that of the AWS environment.
            profile: AWS profile for the dataset. None takes that of the AWS environment.
            storage_option: Settings of its store, as "KEY=VALUE".

        Returns:
            The dataset. Its rows are not read yet.

        Raises:
            ObjectMissing: There is no dataset at `uri`.
            SpecError: Another version of Kosmos-2 Annotate made the dataset.
            StorageError: The store cannot be reached.
        """
        access = StorageOptions(
            endpoint_url=endpoint_url, profile=profile, settings=tuple(storage_option)
        )
        store = open_output(uri, access)
        return cls(uri, access, store, known_record(store))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows: the columns of all datasets, and the carried fields."""
        return self.record.identity.schema_of_rows

    def status(self, *, gpu_hour_cost: float | None = None) -> Status:
        """Read how many shards are committed, which failed, which runs are writing, and the costs.

        Args:
            gpu_hour_cost: Price of one GPU hour, in any currency. None takes that of the job.

        Returns:
            The status at this moment.

        Raises:
            StorageError: The store cannot be reached.
        """
        return read_status(self.uri, self.access, gpu_hour_cost=gpu_hour_cost)

    def rows(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> "pds.Scanner":
        """Scan the annotations of all committed shards, in the order of the plan.

        Args:
            columns: Names of the columns to return. None returns all.
            where: Condition on the rows, such as `pc.field("task") == "brief"`.

        Returns:
            An Arrow scanner that can be read once: `to_table()`, `to_batches()`, `head(5)`.

        Raises:
            KeyError: The dataset has no column of this name.
            CorruptOutput: A file is damaged. This is raised while the scanner is read.
        """
        import pyarrow.dataset as pds  # it imports pandas

        if unknown := [name for name in columns or () if name not in self.schema.names]:
            raise KeyError(f"{self.uri} has no column {unknown[0]!r}; it has {self.schema.names}")
        # A condition may name any column.
        read = self.schema.names if where is not None or columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in read])
        batches = (
            batch.cast(schema)
            for shard_id in self._committed()
            for batch in self._batches(shard_id, read)
        )
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        return pds.Scanner.from_batches(reader, columns=columns and list(columns), filter=where)

    def rejects(self) -> pa.Table:
        """Return the samples of committed shards that have no annotation, and why.

        Returns:
            One row per sample and task, with the columns of `pipeline.schema.REJECTION`.

        Raises:
            CorruptOutput: A file is damaged.
            StorageError: The store cannot be reached.
        """
        tables = [REJECTION.empty_table()]
        for shard_id in self._committed():
            with open_commit(self.store, shard_id) as commit:
                key = commit.footer.rejects
            tables.append(read_rejects(self.store, key))
        return pa.concat_tables(tables)

    def copies(self) -> pa.Table:
        """Return the samples that took the answers to another image, with the same bytes.

        Jobs with `skip_copies` or `reuse` make them. `pipeline.dataset.commit` has the format.

        Returns:
            One row per sample: shard_id, index, original_output ("" for this dataset),
            original_shard_id and original_index.

        Raises:
            CorruptOutput: A file is damaged.
            StorageError: The store cannot be reached.
        """
        rows = list[dict[str, object]]()
        for shard_id in self._committed():
            with open_commit(self.store, shard_id) as commit:
                copies = commit.footer.copies()
            rows += [
                {
                    "shard_id": shard_id,
                    "index": index,
                    "original_output": original.output,
                    "original_shard_id": original.shard_id,
                    "original_index": original.index,
                }
                for index, original in sorted(copies.items())
            ]
        return pa.Table.from_pylist(rows, schema=COPIES)

    def verify(
        self,
        *,
        input: str | None = None,
        fix: bool = False,
        on_progress: ObserveShards = _ignore,
    ) -> "Report":
        """Read the whole dataset and return its defects, as `kosmos2 verify` does.

        Args:
            input: Input of the job; if given, the plan is compared with it.
            fix: Repair the defects that can be repaired.
            on_progress: Called with the number of shards read and in total.

        Returns:
            A report; `report.findings` is empty if nothing is wrong.

        Raises:
            LeaseHeld: With `fix`, another run is writing the dataset.
            StorageError: The store cannot be reached.
        """
        from pipeline.verification.mending import mend
        from pipeline.verification.outputs import drift_from, verify_dataset

        drift = None if input is None else drift_from(self.store, self.record.spec, input)
        with writing_to(self.store) if fix else nullcontext():
            report = verify_dataset(
                self.store,
                self.record,
                running=() if fix else owners(self.store),
                drift=drift,
                observe=on_progress,
            )
            return mend(self.store, self.record, report) if fix else report

    def retry(self, on_progress: Callable[[Progress], None] = _ignore, **options: Any) -> "Verdict":
        """Retry failed shards or rejected samples, as `kosmos2 retry` does.

        Args:
            on_progress: Called with a Progress, as in `pipeline.run`.
            options: Fields of `RetryOptions`, such as `samples=True`.

        Returns:
            How the run ended.

        Raises:
            ValidationError: An option is unknown or has a wrong value (pydantic's class).
            PipelineError: The run as a whole cannot continue, as in `pipeline.run`.
        """
        from pipeline.driver.run import retry
        from pipeline.spec.job import RetryOptions

        return retry(self.uri, RetryOptions(**{**self._access(), **options}), on_progress)

    def filter(
        self, dest: str, *, on_progress: ObserveShards = _ignore, **conditions: Any
    ) -> "Derived":
        """Make a dataset of the annotations that meet conditions, as `kosmos2 filter` does.

        Args:
            dest: Directory or `s3://` prefix of the new dataset.
            on_progress: Called with the number of shards made and in total.
            conditions: Options of `kosmos2 filter`, with underscores: `min_score=0.5`. Options
                that can be repeated take a list: `without_issue=["truncated"]`.

        Returns:
            Counts of kept and dropped boxes, entities and annotations.

        Raises:
            ValidationError: A condition is unknown or has a wrong value (pydantic's class).
            SpecError: There is no condition, a condition is wrong, or `dest` contains other data.
            StorageError: A store cannot be reached.
        """
        from pipeline.derived.filtering import filter_dataset
        from pipeline.derived.options import FilterOptions

        options = FilterOptions(**conditions)
        place = open_output(dest, options.dest_storage)
        return filter_dataset(self._stored(), place, options, on_progress)

    def dedup(
        self, dest: str, *, on_progress: ObserveShards = _ignore, **options: Any
    ) -> "Derived":
        """Make a dataset with one copy of each image, as `kosmos2 dedup` does.

        Args:
            dest: Directory or `s3://` prefix of the new dataset.
            on_progress: Called with the number of shards made and in total.
            options: Options of `kosmos2 dedup`, with underscores: `near=4`.

        Returns:
            Counts of kept and dropped boxes, entities and annotations.

        Raises:
            ValidationError: An option is unknown or has a wrong value (pydantic's class).
            InputChanged: An image has changed since it was annotated.
            SpecError: `dest` contains other data.
            StorageError: A store cannot be reached.
        """
        from pipeline.derived.deduplicating import dedup_dataset
        from pipeline.derived.options import DedupOptions

        chosen = DedupOptions(**options)
        place = open_output(dest, chosen.dest_storage)
        return dedup_dataset(self._stored(), self._inputs(), place, chosen, on_progress)

    def diff(
        self, other: "Dataset", *, least_iou: float = 0.5, on_progress: ObserveShards = _ignore
    ) -> "Differences":
        """Compare this dataset, A, with another one, B, as `kosmos2 diff` does.

        Args:
            other: Dataset of the same images and tasks, such as that of another model.
            least_iou: Boxes with a smaller IoU are not matched, in [0, 1].
            on_progress: Called with the number of shards read and in total.

        Returns:
            The share of annotations that differ, and by task: captions changed, boxes same, moved,
            lost and gained, and the shifts of scores and flags from A to B with 95 % intervals.

        Raises:
            SpecError: `least_iou` is out of range, or the datasets have no annotation in common.
            CorruptOutput: A file is damaged.
            StorageError: A store cannot be reached.
        """
        from pipeline.comparison.diff import diff

        a, b = self._stored(), other._stored()
        return diff(a, b, least_iou=least_iou, observe=on_progress).figures

    def export(
        self, dest: str, *, on_progress: "Callable[[Coverage], None]" = _ignore, **options: Any
    ) -> "Coverage":
        """Write the dataset in another format, or add new shards, as `kosmos2 export` does.

        Args:
            dest: Directory or `s3://` prefix of the export.
            on_progress: Called after each shard with the counts so far.
            options: Options of `kosmos2 export`, with underscores: `format="coco"`.

        Returns:
            Counts of exported shards, annotations, entities and boxes.

        Raises:
            ValidationError: An option is unknown or has a wrong value (pydantic's class).
            InputChanged: An image to embed has changed since it was annotated.
            SpecError: The format does not support an option, or `dest` holds anything but an export
                of this dataset with the same options.
            StorageError: A store cannot be reached.
        """
        from pipeline.exports.exporting import export_dataset
        from pipeline.exports.options import ExportOptions
        from pipeline.exports.sections import in_turn

        chosen = ExportOptions(**options)
        run = in_turn
        if chosen.parallel > 1:
            from pipeline.exports.parallel import on_ray as run
        place = open_output(dest, chosen.dest_storage)
        return export_dataset(self._stored(), self._inputs(), place, chosen, on_progress, run)

    def _stored(self) -> StoredDataset:
        return open_dataset(self.uri, self.access)

    def _inputs(self) -> InputStore:
        return InputStore(self.record.spec.input_storage)

    def _committed(self) -> list[str]:
        committed = Ledger(self.store).committed()
        shards = self._stored().plan.shards
        return [shard.shard_id for shard in shards if shard.shard_id in committed]

    def _batches(self, shard_id: str, columns: Sequence[str]) -> Sequence[pa.RecordBatch]:
        with open_commit(self.store, shard_id) as commit:
            return list(commit.parquet.iter_batches(_ROWS, columns=list(columns)))

    def _access(self) -> dict[str, object]:
        return {
            "output_endpoint_url": self.access.endpoint_url,
            "output_profile": self.access.profile,
            "output_storage_option": self.access.settings,
        }
