"""Files beside the input: one per input file, the same samples in the same order, without images.

A tar gets a tar with `<key>.ground.json` for each sample, other files get Parquet with a row for
each sample, so that a reader can join both in step. A sample without an annotation is there, too.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from pipeline.exports.example import Example
from pipeline.exports.formats.hf import ENTITY_RECORD
from pipeline.exports.formats.protocol import FinishedShard, Format, Setting
from pipeline.exports.formats.webdataset import TarPart
from pipeline.exports.papers.records import (
    ExportContents,
    RecordField,
    RecordSet,
    json_fields,
    table_records,
)
from pipeline.exports.parts import Record, json_text
from pipeline.parquet import ParquetWriter
from pipeline.spec.kinds import LISTED_KINDS

_GROUP_ROWS = 2_000  # rows of a row group, which are Python objects until it is written
_SUFFIX = re.compile(r"\.(gz|bz2|xz|zst|lz4|tgz|tbz2|txz|tar|parquet|arrow|feather)$", re.I)
_SAMPLE = pa.schema(
    [
        pa.field("index", pa.int64()),  # in the input file
        pa.field("key", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image_sha256", pa.string()),
    ]
)
_ANSWER = pa.struct(
    [
        pa.field("caption", pa.string()),
        pa.field("entities", pa.list_(ENTITY_RECORD)),
        pa.field("finish_reason", pa.string()),
        pa.field("issues", pa.list_(pa.string())),
    ]
)
_REJECTED = "rejected"
_TARS = "webdataset"  # the kind of shards that are tars
_REASON = pa.struct([("task", pa.string()), ("error_type", pa.string())])


class _Sidecar(Protocol):
    """An open file. `add` takes the next row; None is a row that is not known."""

    def add(self, row: Record | None) -> None: ...

    def finish(self) -> dict[str, bytes]:
        """Return its bytes, by the extension of its name."""


class _Tar:
    def __init__(self) -> None:
        self._part = TarPart()
        self._last = ""

    def add(self, row: Record | None) -> None:
        # A reader makes one sample of adjacent members of one key. The last sample of a damaged
        # archive may have no key.
        if row is not None and row["key"] and row["key"] != self._last:
            self._last = row["key"]
            self._part.add_file(f"{row['key']}.ground.json", json_text(row).encode())

    def finish(self) -> dict[str, bytes]:
        (data,) = self._part.finish().values()
        return {"tar": data}


class _Table:
    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._buffer = io.BytesIO()
        self._writer = ParquetWriter(self._buffer, schema)
        self._rows: list[Record] = []

    def add(self, row: Record | None) -> None:
        self._rows.append(row or {})
        if len(self._rows) == _GROUP_ROWS:
            self._write()

    def finish(self) -> dict[str, bytes]:
        self._write()
        self._writer.close()
        return {"parquet": self._buffer.getvalue()}

    def _write(self) -> None:
        self._writer.write(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


class _Sidecars:
    """The writer. Shards that are parts of one input file come one after the other."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._columns = {task: _column(task) for task in setting.tasks}
        self._schema = _schema(setting.tasks)
        self._examples: list[Example] = []
        self._open: _Sidecar | None = None
        self._uri = ""
        self._name = ""
        self._names = set[str]()
        self._rows = 0  # in the open file
        self._shards = list[str]()  # in the open file

    def add(self, example: Example) -> None:
        self._examples.append(example)

    def end_shard(self, shard: FinishedShard) -> None:
        """Write the rows of a shard, whose examples have been added."""
        is_list = shard.shard.kind in LISTED_KINDS
        if is_list or self._open is None or self._uri != shard.shard.uri:
            self.close()
            self._begin(shard, is_list=is_list)
        assert self._open is not None
        self._shards.append(shard.shard.shard_id)
        self._pad(0 if is_list else shard.shard.first)
        for row in _rows(shard, self._examples, self._columns):
            self._open.add(row)
            self._rows += 1
        self._examples = []

    def close(self) -> None:
        if self._open is None:
            return
        self._pad(self._setting.lengths.get(self._uri, 0))
        for extension, data in self._open.finish().items():
            name = f"data/{self._name}.ground.{extension}"
            self._setting.destination.write(name, data, self._shards)
        self._open, self._shards = None, []

    def _begin(self, shard: FinishedShard, *, is_list: bool) -> None:
        is_tar = shard.shard.kind == _TARS and self._setting.options.sidecar == "auto"
        self._open = _Tar() if is_tar else _Table(self._schema)
        self._rows = 0
        self._uri = shard.shard.uri
        name = shard.shard.shard_id if is_list else _stem(self._uri)
        # Files of other folders may have the same name.
        self._name = name if name.casefold() not in self._names else shard.shard.shard_id
        self._names.add(self._name.casefold())

    def _pad(self, rows: int) -> None:
        """Add rows for parts of the file that are not committed."""
        assert self._open is not None
        for _ in range(rows - self._rows):
            self._open.add(None)
        self._rows = max(self._rows, rows)


def _rows(
    shard: FinishedShard, examples: list[Example], columns: dict[str, str]
) -> Iterator[Record]:
    answered, refused = defaultdict[int, list[Example]](list), defaultdict[int, list[Record]](list)
    for example in examples:
        answered[example.index].append(example)
    for reject in shard.rejects.to_pylist():
        refused[reject["index"]].append(reject)
    for index in range(shard.samples):
        found, rejects = answered[index], refused[index]
        row: dict[str, Any] = dict.fromkeys([*_SAMPLE.names, *columns.values()])
        for name in _SAMPLE.names:
            if found:
                row[name] = getattr(found[0], name)
        if not found and rejects:
            row |= {"key": rejects[0]["key"], "uri": rejects[0]["uri"]}
        for example in found:
            row[columns[example.task]] = {
                "caption": example.caption,
                "entities": example.entity_records(),
                "finish_reason": example.finish_reason,
                "issues": list(example.issues),
            }
        row[_REJECTED] = [{name: reject[name] for name in _REASON.names} for reject in rejects]
        yield row | {"index": shard.shard.first + index}


def _schema(tasks: Iterable[str]) -> pa.Schema:
    answers = (pa.field(_column(task), _ANSWER) for task in tasks)
    return pa.schema([*_SAMPLE, *answers, pa.field(_REJECTED, pa.list_(_REASON))])


def _records(contents: ExportContents) -> list[RecordSet]:
    found = []
    has_tars = _TARS in contents.kinds and contents.options.sidecar == "auto"
    if contents.kinds - ({_TARS} if has_tars else set()):
        about = "One row per row of the input. `entities` of a task have lists of `boxes`."
        found += [table_records(about, _schema(contents.tasks))]
    if has_tars:
        sample = json_fields("$", index=int, key=str, uri=str, width=int, height=int)
        captions = (
            RecordField(name=name, json_path=f"$.{name}.caption", type="sc:Text")
            for name in map(_column, contents.tasks)
        )
        found += [
            RecordSet(
                name="samples",
                about="A file per sample of the input. `entities` of a task have lists of `boxes`.",
                archives="data/*.ground.tar",
                files="*.ground.json",
                fields=(*sample, *captions),
            )
        ]
    return found


def _stem(uri: str) -> str:
    name = uri.rpartition("/")[2]
    while match := _SUFFIX.search(name):
        name = name[: match.start()]
    return name


def _column(task: str) -> str:
    return f"task_{task}" if task in (*_SAMPLE.names, _REJECTED) else task


FORMAT = Format(
    title="Sidecar files",
    open=_Sidecars,
    folders=("data",),
    records=_records,
    can_embed=False,
    can_be_parallel=False,
    is_by_shard=True,
    about="""\
One file per input file, with the same samples in the same order and no images: `NAME.ground.tar`
for a tar, with `KEY.ground.json` per sample; `NAME.ground.parquet` for others, with one row per row
of the input. Each task is one field: `caption`, `entities`, `finish_reason`, `issues`; it is null
where a sample was rejected, and `rejected` has the reasons.

```python
duckdb.sql("SELECT * FROM 'train.parquet' POSITIONAL JOIN 'DEST/data/train.ground.parquet'")
```
""",
)
