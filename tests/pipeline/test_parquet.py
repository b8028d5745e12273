"""The Parquet files of the dataset."""

import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet as files
from pipeline.errors import CorruptOutput
from pipeline.parquet import ParquetWriter, file_metadata, parquet_bytes, read_parquet
from pipeline.schema import LEDGER

ROW = {
    "shard_id": "a",
    "commit_id": "c" * 32,
    "samples": 3,
    "annotated": 2,
    "rejected": 1,
    "truncated": False,
    "reasons": '{"corrupt_image": 1}',
    "actor_time": {"held_s": 2.5, "busy_s": 2.0, "gpu_held_s": 5.0, "gpu_busy_s": 4.0},
}
TABLE = pa.Table.from_pylist([ROW], schema=LEDGER)


@pytest.mark.parametrize("table", [TABLE, LEDGER.empty_table()], ids=["a row", "empty"])
def test_a_file_reads_back_as_the_table(table: pa.Table) -> None:
    found = pq.read_table(io.BytesIO(parquet_bytes(table, {"a": "b"})))
    assert found.equals(table)
    assert found.schema.equals(table.schema)


def test_a_table_without_rows_has_no_row_group() -> None:
    """`datasets` takes the size of the first group for that of a batch."""
    footer = pq.read_metadata(io.BytesIO(parquet_bytes(LEDGER.empty_table(), {"a": "b"})))
    assert (footer.num_rows, footer.num_row_groups) == (0, 0)
    assert pq.read_metadata(io.BytesIO(parquet_bytes(TABLE))).num_row_groups == 1


def test_metadata_are_prefixed_strings_or_json() -> None:
    data = parquet_bytes(TABLE, {"words": "grün", "list": [{"a": 1}], "none": ""})
    assert file_metadata(data) == {"words": "grün", "list": '[{"a": 1}]', "none": ""}
    footer = pq.read_metadata(io.BytesIO(data)).metadata
    assert footer[b"kosmos2.words"].decode() == "grün"


def test_a_file_is_read_with_its_metadata() -> None:
    found = read_parquet("a.parquet", parquet_bytes(TABLE, {"words": "grün"}))
    assert found.table.equals(TABLE, check_metadata=True)
    assert found.metadata == {"words": "grün"}


def test_damage_anywhere_in_a_file_is_noticed() -> None:
    """The schema that Arrow keeps in the footer is only a hint, so nothing may hang on it."""
    many = pa.concat_tables([TABLE] * 50)
    data = parquet_bytes(many)
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            found = read_parquet("a.parquet", bytes(damaged)).table
        except CorruptOutput:
            continue
        assert found.equals(many) or not found.schema.equals(LEDGER)


@pytest.mark.parametrize("end", [0, 1, 4, 100, -1, -8])
def test_a_file_that_ends_early_is_damaged(end: int) -> None:
    with pytest.raises(CorruptOutput, match=r"^a\.parquet is damaged \("):
        read_parquet("a.parquet", parquet_bytes(TABLE)[:end])


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
    class Worse(ParquetWriter):
        def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
            super().__init__(sink, worse(schema.empty_table()).schema)

        def write(self, table: pa.Table, rows_per_group: int | None = None) -> None:
            super().write(worse(table), rows_per_group)

    monkeypatch.setattr(files, "ParquetWriter", Worse)
    with pytest.raises(CorruptOutput, match="reads back differently"):
        parquet_bytes(TABLE)
