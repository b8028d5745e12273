"""A dataset as Python sees it: what the commands on a dataset do, as methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from pipeline.dataset.commit import open_commit, read_rejects
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.status import Status, read_status
from pipeline.derived.deriving import Derived
from pipeline.derived.filtering import filter_dataset
from pipeline.derived.options import FilterOptions
from pipeline.driver.passes import ProgressObserver
from pipeline.driver.run import retry
from pipeline.driver.verdict import Verdict
from pipeline.exports.coverage import Coverage
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.exports.parallel import on_ray
from pipeline.exports.sections import in_turn
from pipeline.schema import REJECTION
from pipeline.spec.job import RetryOptions
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.verification.outputs import Report, owners, verify_dataset

_ROWS = 8192  # in a batch


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that `run` has begun, finished or not.

    Each method reads storage anew: it sees what is committed at that moment.

    Example:
        >>> dataset = Dataset.open("s3://bucket/out")
        >>> dataset.status().shards_left
        0
        >>> dataset.rows(columns=["key", "caption"]).to_table().num_rows
        240
        >>> dataset.export("s3://bucket/coco", format="coco")
    """

    uri: str
    access: StorageOptions
    stored: StoredDataset

    @classmethod
    def open(cls, uri: str, *, endpoint_url: str | None = None, profile: str | None = None) -> Self:
        """Open the dataset at a directory or `s3://` prefix.

        Args:
            uri: Where it lies.
            endpoint_url: S3 endpoint of the dataset.
            profile: AWS profile for the dataset.

        Raises:
            ObjectMissing: Nothing was begun there.
            SpecError: Another version of ours made it.
            StorageError: The store cannot be reached.
        """
        access = StorageOptions(endpoint_url=endpoint_url, profile=profile)
        return cls(uri, access, open_dataset(uri, access))

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows: those of every dataset, and fields that were carried."""
        return self.stored.record.identity.schema_of_rows

    def status(self) -> Status:
        """Tell how far the dataset is, and who is at work on it. Raises StorageError."""
        return read_status(self.uri, self.access)

    def rows(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pds.Scanner:
        """Scan the annotations of all shards that are committed now, in the order of the plan.

        Args:
            columns: The names of the columns to give; None gives all.
            where: A condition on rows, as `pc.field("task") == "brief"`.

        Returns:
            An Arrow scanner, to be read once: `to_table()`, `to_batches()`, `head(5)`.

        Raises:
            KeyError: The dataset has no such column.
            CorruptOutput: While it is read, where a file is damaged.
        """
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
        """Read why samples of committed shards have no annotation: rows of `schema.REJECTION`.

        Raises CorruptOutput, StorageError.
        """
        store, tables = self.stored.store, [REJECTION.empty_table()]
        for shard_id in self._committed():
            with open_commit(store, shard_id) as commit:
                key = commit.footer.rejects
            tables.append(read_rejects(store, key))
        return pa.concat_tables(tables)

    def verify(self) -> Report:
        """Read the whole dataset and tell what is wrong with it, as `kosmos2 verify` does.

        Raises StorageError.
        """
        store = self.stored.store
        return verify_dataset(store, self.stored.record, running=owners(store))

    def retry(
        self, on_progress: ProgressObserver = lambda progress: None, **options: Any
    ) -> Verdict:
        """Annotate again what failed, as `pipeline.retry` does with these `RetryOptions`."""
        return retry(self.uri, RetryOptions(**{**self._access("output"), **options}), on_progress)

    def filter(self, dest: str, **conditions: Any) -> Derived:
        """Make a dataset of what meets the conditions, as `kosmos2 filter` does.

        Args:
            dest: Directory or `s3://` prefix of the new dataset.
            conditions: Options of `kosmos2 filter`, with underscores: `min_score=0.5`. Lists take
                several: `without_issue=["truncated"]`.

        Raises:
            SpecError: No condition, a wrong one, or a `dest` that holds something else.
        """
        options = FilterOptions(**conditions)
        return filter_dataset(self.stored, open_output(dest, options.dest_storage), options)

    def export(self, dest: str, **options: Any) -> Coverage:
        """Write the dataset in another tool's format, as `kosmos2 export` does.

        Args:
            dest: Directory or `s3://` prefix of the export.
            options: Options of `kosmos2 export`, with underscores: `format="coco"`.

        Raises:
            SpecError: The format cannot do what is asked for, or `dest` is taken.
        """
        chosen = ExportOptions(**options)
        return export_dataset(
            self.stored,
            InputStore(self.stored.record.spec.input_storage),
            open_output(dest, chosen.dest_storage),
            chosen,
            run=in_turn if chosen.parallel == 1 else on_ray,
        )

    def _committed(self) -> list[str]:
        committed = Ledger(self.stored.store).committed()
        shards = open_dataset(self.uri, self.access).plan.shards
        return [shard.shard_id for shard in shards if shard.shard_id in committed]

    def _batches(self, shard_id: str, columns: Sequence[str]) -> Sequence[pa.RecordBatch]:
        with open_commit(self.stored.store, shard_id) as commit:
            return list(commit.parquet.iter_batches(_ROWS, columns=list(columns)))

    def _access(self, prefix: str) -> dict[str, str | None]:
        return {
            f"{prefix}_endpoint_url": self.access.endpoint_url,
            f"{prefix}_profile": self.access.profile,
        }
