"""Parquet and Arrow as nobody should send them."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.spoiling import Spoil, cut, flip, spoil
from tests.support.tars import picture

Made = tuple[bytes, set[str], str | None]  # with the reasons of rejections, and of the shard's end

_ROWS = 6


def _table(**columns: Any) -> pa.Table:
    images = [picture(i) for i in range(_ROWS)]
    return pa.table({"jpg": pa.array(images, pa.binary()), "n": list(range(_ROWS)), **columns})


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **{"row_group_size": 2, **options})
    return buffer.getvalue()


def arrow(table: pa.Table, compression: str | None = None, *, is_file: bool = False) -> bytes:
    buffer, options = io.BytesIO(), pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(buffer, table.schema, options=options) as stream:
        stream.write_table(table, max_chunksize=2)
    return buffer.getvalue()


def _flip_some(rng: np.random.Generator, data: bytes) -> bytes:
    return flip(rng, data, most=20)


def _flip_near_the_end(rng: np.random.Generator, data: bytes) -> bytes:
    """Where Parquet has its footer."""
    at = max(0, len(data) - 1200)
    return data[:at] + flip(rng, data[at:], most=4)


_SPOILS: tuple[Spoil, ...] = (cut, _flip_some, _flip_near_the_end)


def spoilt(rng: np.random.Generator) -> tuple[str, bytes]:
    """(extension, data) of a sound one, spoilt once or twice over."""
    words = pa.array([f"words {i}" for i in range(_ROWS)])
    table = _table(words=words, deep=[[{"a": i}] for i in range(_ROWS)])
    compression = str(rng.choice(["none", "snappy", "zstd", "gzip"]))
    dictionary = table.set_column(0, "jpg", table["jpg"].dictionary_encode())
    kinds: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("arrow", lambda: arrow(table)),
        ("arrow", lambda: arrow(dictionary)),
        ("arrow", lambda: arrow(table, "lz4", is_file=True)),
        ("arrow", lambda: arrow(dictionary, "zstd")),
        ("parquet", lambda: parquet(table, compression=compression)),
        ("parquet", lambda: parquet(dictionary, compression=compression)),
        ("parquet", lambda: parquet(table, compression=compression, write_page_checksum=True)),
    )
    extension, write = kinds[rng.integers(len(kinds))]
    data, _ = spoil(rng, write(), _SPOILS)
    return extension, data


def _growing_dictionary() -> bytes:
    """Each batch with a dictionary of its own: together more than is kept of one file."""
    buffer, schema = io.BytesIO(), pa.schema([("jpg", pa.dictionary(pa.int32(), pa.binary()))])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(buffer, schema, options=options) as stream:
        for number in range(20):
            value = bytes([number]) * (8 << 20)
            image = pa.array([value], pa.binary()).dictionary_encode()
            stream.write_batch(pa.record_batch([image], schema=schema))
    return buffer.getvalue()


def bombs() -> dict[str, Made]:
    large, nothing = bytes(1 << 20), set[str]()
    as_dictionary = pa.table({"jpg": pa.DictionaryArray.from_arrays([0] * 600, [large])})
    zeros = pa.table({"jpg": pa.array([bytes(300 << 20)], pa.binary())})
    nulls = pa.table({"jpg": pa.nulls(300_000, pa.binary())})
    return {
        "a value many times.parquet": (
            *(
                parquet(as_dictionary, row_group_size=600, store_schema=False),
                {"unknown_format"},
                None,
            ),
        ),
        "zeros.parquet": (parquet(zeros, compression="zstd"), {"corrupt_row_group"}, None),
        "rows of nothing.parquet": (
            parquet(nulls, row_group_size=300_000),
            nothing,
            "input_unreadable",
        ),
        "no bytes.parquet": (
            parquet(_table(jpg=pa.array([None] * _ROWS, pa.binary()))),
            {"no_image"},
            None,
        ),
        "text.parquet": (b"words " * 100, nothing, "input_unreadable"),
        "empty.parquet": (b"", nothing, "input_unreadable"),
        "a long footer.parquet": (
            *(b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", nothing, "input_unreadable"),
        ),
        "no images.parquet": (*(parquet(pa.table({"n": [1, 2]})), nothing, "input_unreadable"),),
        "two images.parquet": (
            parquet(pa.table({"a": [b"x"], "b": [b"y"]})),
            nothing,
            "input_unreadable",
        ),
        "lists of images.parquet": (
            parquet(pa.table({"jpg": [[b"x"], [b"y"]]})),
            nothing,
            "input_unreadable",
        ),
        "text.arrow": (b"words " * 100, nothing, "input_unreadable"),
        "empty.arrow": (b"", nothing, "input_unreadable"),
        "compressed.arrow": (arrow(zeros, "zstd"), {"corrupt_stream"}, None),
        "compressed images.arrow": (arrow(_table(), "lz4", is_file=True), nothing, None),
        "a large dictionary.arrow": (
            arrow(pa.table({"jpg": zeros["jpg"].dictionary_encode()}), "zstd"),
            {"corrupt_stream"},
            None,
        ),
        "dictionaries without end.arrow": (
            _growing_dictionary(),
            {"unknown_format", "corrupt_stream"},
            None,
        ),
        "a value many times over.parquet": (
            parquet(as_dictionary, row_group_size=600),
            {"unknown_format"},
            None,
        ),
        "ends early.arrow": (arrow(_table())[:-8], {"corrupt_stream"}, None),
        "a long message.arrow": (
            *(arrow(_table())[:-8] + b"\xff\xff\xff\xff\xff\xff\xff\x7f", {"corrupt_stream"}, None),
        ),
    }
