"""Samples of record batches: the image, the key, and the rest as metadata."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Issue
from pipeline.formats.limits import MAX_IMAGE_BYTES, MAX_METADATA_BYTES, MAX_NAME_CHARS
from pipeline.formats.sample import Sample, Unreadable, unreadable
from pipeline.formats.table.cells import VALUE_ERRORS, image_bytes, image_in, json_value, key_text
from pipeline.formats.table.columns import Columns, ImageColumn
from pipeline.schema import metadata_json


def samples_of_batch(
    batch: pa.RecordBatch, columns: Columns, *, index: int, row: int
) -> Iterator[Sample | Unreadable]:
    """Yield the samples of a batch; `index` and `row` are the first one's in shard and file."""
    for place in range(batch.num_rows):
        yield _sample(batch, place, columns, index=index + place, row=row + place)


def _sample(
    batch: pa.RecordBatch, place: int, columns: Columns, *, index: int, row: int
) -> Sample | Unreadable:
    key, path, is_text = str(row), None, False
    try:
        named = None if columns.key is None else key_text(batch[columns.key][place].as_py())
        key = named or key
        data, path, is_text = image_in(batch[columns.image.name][place], columns.image.steps)
    except VALUE_ERRORS as error:
        said = f"the values of the row cannot be read: {error}"[:500]
        return unreadable(index, key, None, "corrupt_row", said)
    if len(key) > MAX_NAME_CHARS:
        said = f"the key has more than {MAX_NAME_CHARS} characters; it is shown cut"
        return unreadable(index, key, path, "name_too_long", said)
    if data is None:
        return unreadable(index, key, path, "no_image", _nothing_in(columns.image, path))
    if data.size > MAX_IMAGE_BYTES:
        said = f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB"
        return unreadable(index, key, path, "member_too_large", said)
    try:
        image = image_bytes(data, is_text=is_text)
    except ValueError as error:
        return unreadable(index, key, path, "corrupt_row", str(error))
    metadata, issues = _metadata(batch, place, columns.others)
    return Sample(
        index=index,
        key=key,
        member=path,
        image_offset=None,
        data=image,
        metadata=metadata,
        issues=issues,
    )


def _nothing_in(column: ImageColumn, path: str | None) -> str:
    if path is None:
        return f"the column {column.path} has no bytes"
    return (
        f"the column {column.path} has no bytes, only the path {path:.200}; if that file exists, "
        f"name the column of paths: --image-column {column.path}.path"
    )


def _metadata(
    batch: pa.RecordBatch, place: int, names: tuple[str, ...]
) -> tuple[str | None, tuple[Issue, ...]]:
    """Return metadata as strict JSON, and the issues of values that were left out."""
    if not names:
        return None, ()
    fields, issues = dict[str, Any](), set[Issue]()
    for name in names:
        cell = batch[name][place]
        try:
            fields[name] = json_value(cell.as_py())
        except (*VALUE_ERRORS, RecursionError):
            issues.add(Issue.METADATA_INVALID)
    text = metadata_json(fields)
    if len(text) > MAX_METADATA_BYTES:
        return None, (*sorted(issues), Issue.METADATA_TOO_LARGE)
    return text, tuple(sorted(issues))


def looked_at(batches: Sequence[pa.RecordBatch], name: str) -> Iterator[pa.Scalar]:
    """Yield the values of a column in batches that are already read."""
    for batch in batches:
        column = batch[name]
        for place in range(len(column)):
            yield column[place]
