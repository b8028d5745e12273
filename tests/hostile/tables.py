"""Parquet and Arrow as nobody should send them."""

import io
from collections.abc import Callable, Iterator, Set
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.spoiling import Spoil, cut, flip, spoil
from tests.support.tars import picture

_ROWS = 6


@dataclass(frozen=True, slots=True)
class Bomb:
    """A file that is made when it is needed, as some take a second, and how reading it ends."""

    make: Callable[[], bytes]
    _: KW_ONLY
    reasons: Set[str] = frozenset()  # of rejections
    error_type: str | None = None  # of the shard


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


def _many_times(**options: Any) -> bytes:
    large = bytes(1 << 20)
    table = pa.table({"jpg": pa.DictionaryArray.from_arrays([0] * 600, [large])})
    return parquet(table, row_group_size=600, **options)


def _zeros(images: int = 1) -> pa.Table:
    size = 257 << 20
    ends = pa.py_buffer(np.linspace(0, size, images + 1).astype(np.int32))
    zeros = pa.Array.from_buffers(pa.binary(), images, [None, ends, pa.py_buffer(bytes(size))])
    return pa.table({"jpg": zeros})


def _of_nothing() -> bytes:
    return parquet(pa.table({"jpg": pa.nulls(300_000, pa.binary())}), row_group_size=300_000)


def _with_a_dictionary() -> bytes:
    value = _zeros()["jpg"].combine_chunks()
    return arrow(pa.table({"jpg": pa.DictionaryArray.from_arrays([0], value)}), "zstd")


_UNREADABLE = "input_unreadable"
_CUT = {"corrupt_stream"}
BOMBS = {
    "a value many times.parquet": Bomb(
        lambda: _many_times(store_schema=False), reasons={"unknown_format"}
    ),
    "a value many times over.parquet": Bomb(_many_times, reasons={"unknown_format"}),
    "zeros.parquet": Bomb(
        # Statistics, a dictionary or large pages of zeros take seconds.
        lambda: parquet(
            _zeros(images=64),
            row_group_size=64,
            compression="zstd",
            write_statistics=False,
            use_dictionary=False,
            write_batch_size=1,
        ),
        reasons={"corrupt_row_group"},
    ),
    "rows of nothing.parquet": Bomb(_of_nothing, error_type=_UNREADABLE),
    "no bytes.parquet": Bomb(
        lambda: parquet(_table(jpg=pa.array([None] * _ROWS, pa.binary()))), reasons={"no_image"}
    ),
    "text.parquet": Bomb(lambda: b"words " * 100, error_type=_UNREADABLE),
    "empty.parquet": Bomb(lambda: b"", error_type=_UNREADABLE),
    "a long footer.parquet": Bomb(
        lambda: b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", error_type=_UNREADABLE
    ),
    "no images.parquet": Bomb(lambda: parquet(pa.table({"n": [1, 2]})), error_type=_UNREADABLE),
    "two images.parquet": Bomb(
        lambda: parquet(pa.table({"a": [b"x"], "b": [b"y"]})), error_type=_UNREADABLE
    ),
    "lists of images.parquet": Bomb(
        lambda: parquet(pa.table({"jpg": [[b"x"], [b"y"]]})), error_type=_UNREADABLE
    ),
    "text.arrow": Bomb(lambda: b"words " * 100, error_type=_UNREADABLE),
    "empty.arrow": Bomb(lambda: b"", error_type=_UNREADABLE),
    "compressed.arrow": Bomb(lambda: arrow(_zeros(), "zstd"), reasons=_CUT),
    "compressed images.arrow": Bomb(lambda: arrow(_table(), "lz4", is_file=True)),
    "a large dictionary.arrow": Bomb(_with_a_dictionary, reasons=_CUT),
    "dictionaries without end.arrow": Bomb(_growing_dictionary, reasons={"unknown_format", *_CUT}),
    "ends early.arrow": Bomb(lambda: arrow(_table())[:-8], reasons=_CUT),
    "a long message.arrow": Bomb(
        lambda: arrow(_table())[:-8] + b"\xff\xff\xff\xff\xff\xff\xff\x7f", reasons=_CUT
    ),
}


def files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, data) of the bombs, and of `count` that are spoilt."""
    for name, bomb in BOMBS.items():
        yield name, bomb.make()
    for number in range(count):
        extension, data = spoilt(np.random.default_rng([seed, number]))
        yield f"{number:05d}.{extension}", data


def sound() -> Iterator[tuple[str, bytes]]:
    """(name, data) of one of each kind."""
    yield "a.parquet", parquet(_table())
    yield "a.arrow", arrow(_table())
