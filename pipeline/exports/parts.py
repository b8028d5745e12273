"""Files of an export that hold many examples: numbered, each of bounded size.

A file is made in memory and written as a whole, so nothing half-written ever has its name.
"""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import pyarrow as pa

from pipeline.exports.destination import Destination
from pipeline.exports.example import Example
from pipeline.parquet import ParquetWriter

# A row group is kept in memory as Python objects until it is written.
_GROUP_ROWS = 2_000
_GROUP_BYTES = 32 * 2**20  # of images and texts

Record = dict[str, Any]


class Part(Protocol):
    """Files that begin and end together: usually one."""

    def add(self, example: Example) -> None: ...

    @property
    def size_bytes(self) -> int:
        """Estimated size of what `finish` will return."""

    def finish(self) -> Mapping[str, bytes]:
        """Return the files by name, with `{part}` in place of the split and number."""


class PartsWriter:
    """A writer with one open part per split, closed at the requested size or count.

    `prefix` precedes the number of a part. A split without examples has no file, since `datasets`
    loads no split at all if one is empty. The exception is `empty_split`, which always has a file.
    """

    def __init__(
        self,
        destination: Destination,
        new: Callable[[], Part],
        *,
        max_bytes: int,
        max_examples: int | None,
        prefix: str,
        empty_split: str | None = None,
    ) -> None:
        self._destination = destination
        self._new = new
        self._max_bytes = max_bytes
        self._max_examples = max_examples
        self._prefix = prefix
        self._open: dict[str, Part] = {} if empty_split is None else {empty_split: new()}
        self._examples = Counter[str]()
        self._shards = defaultdict[str, dict[str, None]](dict)  # of the open parts, in order
        self._numbers = Counter[str]()

    def add(self, example: Example) -> None:
        split = example.split
        if split not in self._open:
            self._open[split] = self._new()
        part = self._open[split]
        part.add(example)
        self._examples[split] += 1
        self._shards[split][example.shard_id] = None
        if part.size_bytes >= self._max_bytes or self._examples[split] == self._max_examples:
            self._finish(split)

    def close(self) -> None:
        for split in list(self._open):
            self._finish(split)

    def _finish(self, split: str) -> None:
        part = f"{split}-{self._prefix}{self._numbers[split]:05d}"
        shards = self._shards.pop(split, {})
        for name, data in self._open.pop(split).finish().items():
            self._destination.write(name.format(part=part), data, shards)
        self._numbers[split] += 1
        self._examples[split] = 0


class ParquetPart:
    """A Parquet file.

    `rows` makes rows of `schema` from an example; the schema carries the metadata.
    """

    def __init__(self, schema: pa.Schema, rows: Callable[[Example], list[Record]]) -> None:
        self._schema = schema
        self._rows_of = rows
        self._buffer = io.BytesIO()
        self._writer = ParquetWriter(self._buffer, schema)
        self._rows: list[Record] = []
        self._waiting_bytes = 0

    def add(self, example: Example) -> None:
        rows = self._rows_of(example)
        self._rows += rows
        self._waiting_bytes += len(example.image.data) if example.image else 0
        self._waiting_bytes += sum(
            len(value) for row in rows for value in row.values() if isinstance(value, str)
        )
        if len(self._rows) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._write_group()

    @property
    def size_bytes(self) -> int:
        return self._buffer.tell() + self._waiting_bytes

    def finish(self) -> dict[str, bytes]:
        self._write_group()
        self._writer.close()
        return {"data/{part}.parquet": self._buffer.getvalue()}

    def _write_group(self) -> None:
        self._writer.write(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._waiting_bytes = [], 0


class JsonPart:
    """A JSON array (`is_lines` False), or one JSON value per line."""

    def __init__(self, name: str, record: Callable[[Example], Record], *, is_lines: bool) -> None:
        self._name = name
        self._record_of = record
        self._is_lines = is_lines
        self._records: list[str] = []
        self.size_bytes = 0

    def add(self, example: Example) -> None:
        text = json_text(self._record_of(example))
        self._records.append(text)
        self.size_bytes += len(text)

    def finish(self) -> dict[str, bytes]:
        if self._is_lines:
            return {self._name: "".join(f"{text}\n" for text in self._records).encode()}
        return {self._name: json_array(self._records).encode()}


def json_text(value: object) -> str:
    """Return JSON escaped to ASCII, so that no reader can misread its encoding."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def yaml_text(text: str) -> str:
    """Return a JSON string that is also a YAML string.

    Characters that YAML treats as a line break or refuses are escaped.
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def json_array(texts: Iterable[str]) -> str:
    return "[" + ",\n".join(texts) + "]"
