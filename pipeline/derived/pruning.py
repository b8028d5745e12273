"""Removal of boxes and entities from the column `entities`; dropped rows as rejections."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.annotation import Grounding
from kosmos2_core.grounding.quality import QUALITY_ISSUES, quality_issues
from pipeline.derived.account import Amount
from pipeline.schema import ENTITY, REJECTION, entity_of

Mask = npt.NDArray[np.bool_]


def amount(rows: pa.Table) -> Amount:
    entities = pc.list_flatten(rows["entities"])
    boxes = pc.list_value_length(pc.struct_field(entities, "boxes"))
    return Amount(
        annotations=rows.num_rows, entities=len(entities), boxes=pc.sum(boxes).as_py() or 0
    )


def without_boxes(rows: pa.Table, keeps: Mask) -> tuple[pa.Table, int]:
    """Keep the boxes for which `keeps` is True; it has one value per box, in order.

    An entity that loses its last box is dropped too. Returns the rows and the number of such
    entities.
    """
    column = rows["entities"].combine_chunks()
    entities = pc.list_flatten(column)
    boxes = pc.struct_field(entities, "boxes")
    counts = pc.list_value_length(boxes).to_numpy()
    left = _counts(boxes, keeps)
    pruned = _list(left, pc.list_flatten(boxes).filter(pa.array(keeps)), boxes.type)
    columns = [
        pruned if field.name == "boxes" else pc.struct_field(entities, field.name)
        for field in ENTITY
    ]
    is_left = (left > 0) | (counts == 0)
    entities = pa.StructArray.from_arrays(columns, fields=list(ENTITY))
    changed = _with_entities(rows, column, entities, is_left)
    return _with_issues(rows, changed), int(np.count_nonzero(~is_left))


def without_entities(rows: pa.Table, keeps: Mask) -> pa.Table:
    """Keep the entities for which `keeps` is True. The words of the others stay in the captions."""
    column = rows["entities"].combine_chunks()
    changed = _with_entities(rows, column, pc.list_flatten(column), keeps)
    return _with_issues(rows, changed)


def rejections(
    rows: pa.Table, *, stage: str, error_types: Sequence[str], messages: Sequence[str]
) -> pa.Table:
    """Return a row of `schema.REJECTION` for each of the dropped `rows`."""
    given = {
        "stage": pa.repeat(stage, rows.num_rows),
        "error_type": pa.array(error_types, pa.string()),
        "message": pa.array(messages, pa.string()),
        "retriable": pa.repeat(False, rows.num_rows),
    }
    columns = [given.get(name) if name in given else rows[name] for name in REJECTION.names]
    return pa.table(columns, schema=REJECTION)


def _with_entities(
    rows: pa.Table, column: pa.ListArray, entities: pa.StructArray, keeps: Mask
) -> pa.Table:
    left = _list(_counts(column, keeps), entities.filter(pa.array(keeps)), column.type)
    at = rows.schema.get_field_index("entities")
    return rows.set_column(at, rows.schema.field(at), left)


def _counts(lists: pa.ListArray, keeps: Mask) -> npt.NDArray[np.int64]:
    """Count the kept values of each list."""
    parents = pc.list_parent_indices(lists).to_numpy()
    return np.bincount(parents[keeps], minlength=len(lists)).astype(np.int64)


def _list(counts: npt.NDArray[np.int64], values: pa.Array, kind: pa.DataType) -> pa.ListArray:
    offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def _with_issues(before: pa.Table, after: pa.Table) -> pa.Table:
    """Recompute the quality flags of changed rows, which may be gone with a box or entity."""
    changed = np.flatnonzero(_size_of(before) != _size_of(after))
    if not len(changed):
        return after
    issues: list[list[str]] = after["issues"].to_pylist()
    columns = ["caption", "prompt", "prompt_chars", "entities"]
    for at, row in zip(changed, after.select(columns).take(changed).to_pylist(), strict=True):
        issues[at] = [*(i for i in issues[at] if i not in QUALITY_ISSUES), *_judged(row)]
    at = after.schema.get_field_index("issues")
    field = after.schema.field(at)
    return after.set_column(at, field, pa.array(issues, field.type))


def _judged(row: dict[str, Any]) -> tuple[str, ...]:
    grounding = Grounding(
        caption=row["caption"],
        entities=tuple(map(entity_of, row["entities"])),
        issues=(),
        prompt_chars=row["prompt_chars"],
    )
    return quality_issues(row["prompt"], grounding)


def _size_of(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return the number of entities and boxes of each row."""
    column = rows["entities"].combine_chunks()
    boxes = pc.list_value_length(pc.struct_field(pc.list_flatten(column), "boxes")).to_numpy()
    parents = pc.list_parent_indices(column).to_numpy()
    found: npt.NDArray[np.int64] = np.bincount(parents, weights=boxes + 1, minlength=len(column))
    return found
