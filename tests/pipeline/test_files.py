"""The Parquet files of the dataset."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CorruptOutput
from pipeline.files import file_metadata, parquet_bytes
from pipeline.schema import LEDGER

TABLE = pa.Table.from_pylist(
    [{"shard_id": "a", "samples": 3, "annotated": 2, "rejected": 1, "truncated": False}],
    schema=LEDGER,
)


@pytest.mark.parametrize("table", [TABLE, LEDGER.empty_table()], ids=["a row", "empty"])
def test_a_file_reads_back_as_the_table(table: pa.Table) -> None:
    found = pq.read_table(io.BytesIO(parquet_bytes(table, {"a": "b"})))
    assert found.equals(table)
    assert found.schema.equals(table.schema)


def test_metadata_are_prefixed_strings_or_json() -> None:
    data = parquet_bytes(TABLE, {"words": "grün", "list": [{"a": 1}], "none": ""})
    assert file_metadata(data) == {"words": "grün", "list": '[{"a": 1}]', "none": ""}
    footer = pq.read_metadata(io.BytesIO(data)).metadata
    assert footer[b"kosmos2.words"].decode() == "grün"


def test_files_are_compressed_with_zstd() -> None:
    group = pq.read_metadata(io.BytesIO(parquet_bytes(TABLE))).row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


@pytest.mark.parametrize(
    "worse",
    [
        lambda table: table.slice(1),
        lambda table: table.drop_columns(["truncated"]),
        lambda table: table.cast(pa.schema([f.with_nullable(True) for f in LEDGER])),
        lambda table: table.rename_columns(["id", *LEDGER.names[1:]]),
    ],
    ids=["a row less", "a column less", "other nullability", "another name"],
)
def test_a_file_that_reads_back_otherwise_is_refused(
    worse, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pq.write_table
    monkeypatch.setattr(pq, "write_table", lambda table, *a, **kw: write(worse(table), *a, **kw))
    with pytest.raises(CorruptOutput, match="reads back differently"):
        parquet_bytes(TABLE)
