"""Checks of the values of annotations: rules that hold for every answer of the model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.annotation import BoxSource, FinishReason
from kosmos2_core.grounding.grid import box_of
from pipeline.verification.findings import Defect

_TOLERANCE = 1e-3  # for probabilities that were summed in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongRows:
    """A broken rule. `rows` are distinct row numbers in order; `message` is about the first."""

    defect: Defect
    rows: tuple[int, ...]
    message: str


def wrong_rows(table: pa.Table, *, input_size: int) -> Iterator[WrongRows]:
    """Yield every rule of `schema.ANNOTATION` that some row breaks; `input_size` is in bytes.

    `table` has that schema, so required values are not null.
    """
    entities = table["entities"].combine_chunks()
    rows = pc.list_parent_indices(entities).to_numpy()
    entities = entities.flatten()
    boxes = pc.struct_field(entities, "boxes")
    box_rows = rows[pc.list_parent_indices(boxes).to_numpy()]
    boxes = boxes.flatten()
    checks = (
        (Defect.WRONG_OFFSETS, rows, _offsets_hold(table, entities, rows)),
        (Defect.WRONG_BOX, box_rows, _boxes_fit(boxes)),
        *_scores(entities, rows, boxes, box_rows),
        *_plain_values(table, input_size),
    )
    every_row = np.arange(table.num_rows)
    for defect, at, holds in checks:
        wrong = np.unique((every_row if at is None else at)[~holds.mask])
        if len(wrong):
            yield WrongRows(
                defect=defect, rows=tuple(wrong.tolist()), message=f"{holds.name} is wrong"
            )


@dataclass(frozen=True, slots=True)
class _Holds:
    name: str
    mask: np.ndarray  # bool, one per entity, box or row


_Check = tuple[Defect, np.ndarray | None, _Holds]


def _offsets_hold(table: pa.Table, entities: pa.StructArray, rows: np.ndarray) -> _Holds:
    captions = table["caption"].to_pylist()
    start, end, phrase = (
        pc.struct_field(entities, name).to_pylist() for name in ("start", "end", "phrase")
    )
    found = (
        # Python counts negative offsets from the end.
        0 <= a < b <= len(captions[row]) and captions[row][a:b] == words
        for row, a, b, words in zip(rows.tolist(), start, end, phrase, strict=True)
    )
    return _Holds("caption[start:end] == phrase", np.fromiter(found, bool, len(entities)))


def _boxes_fit(boxes: pa.StructArray) -> _Holds:
    xyxy = np.stack([_numbers(boxes, name) for name in ("x1", "y1", "x2", "y2")], axis=1)
    cells = np.stack([_numbers(boxes, "ul"), _numbers(boxes, "lr")], axis=1)
    pairs, inverse = np.unique(cells, axis=0, return_inverse=True)
    expected = np.array([_box_of(*pair) for pair in pairs.tolist()], np.float32).reshape(-1, 4)
    # A box of cells is in range and in order by construction, and exact in float32.
    return _Holds("box of ul and lr", (expected[inverse.reshape(-1)] == xyxy).all(axis=1))


def _box_of(ul: int, lr: int) -> tuple[float, float, float, float]:
    try:
        return box_of(ul, lr)
    except ValueError:
        return (np.nan,) * 4


def _scores(
    entities: pa.StructArray, rows: np.ndarray, boxes: pa.StructArray, box_rows: np.ndarray
) -> Iterator[_Check]:
    sources = pc.is_in(pc.struct_field(boxes, "source"), pa.array(get_args(BoxSource)))
    for at, holds in (
        (box_rows, _Holds("score", _is_between(boxes, "score", 0, 1))),
        (box_rows, _Holds("logp", _is_between(boxes, "logp", -np.inf, 0))),
        (box_rows, _Holds("consistency", _is_between(boxes, "consistency", 0, 1))),
        (box_rows, _Holds("source", _mask(sources))),
        (rows, _Holds("phrase_logprob", _is_between(entities, "phrase_logprob", -np.inf, 0))),
    ):
        yield Defect.WRONG_VALUE, at, holds


def _plain_values(table: pa.Table, input_size: int) -> Iterator[_Check]:
    tokens = pc.list_value_length(table["token_ids"])
    finish = pa.array(get_args(FinishReason))
    start, size = table["image_offset"], table["image_size"]
    has_start, has_size = pc.is_valid(start), pc.is_valid(size)
    end = pc.add(pc.fill_null(start, 0), pc.fill_null(size, 0))
    metadata = table["metadata"].to_pylist()
    for name, holds in (
        ("token_logprobs", pc.equal(tokens, pc.list_value_length(table["token_logprobs"]))),
        ("prompt_chars", _within(table["prompt_chars"], 0, pc.utf8_length(table["caption"]))),
        ("width", pc.greater(table["width"], 0)),
        ("height", pc.greater(table["height"], 0)),
        ("exif_orientation", _within(table["exif_orientation"], 1, 8)),
        ("finish_reason", pc.is_in(table["finish_reason"], finish)),
        ("image_size", pc.and_(pc.equal(has_start, has_size), _within(end, 0, input_size))),
        ("image_offset", pc.greater_equal(pc.fill_null(start, 0), 0)),
        ("metadata", pa.array([text is None or _is_object(text) for text in metadata], pa.bool_())),
    ):
        yield Defect.WRONG_VALUE, None, _Holds(name, _mask(holds))


def _within(values: Any, least: Any, most: Any) -> Any:
    return pc.and_(pc.less_equal(least, values), pc.less_equal(values, most))


def _is_between(structs: pa.StructArray, name: str, least: float, most: float) -> np.ndarray:
    """Return which values are in range. Null is allowed, NaN is not."""
    column = pc.struct_field(structs, name)
    values = pc.fill_null(column, least if np.isfinite(least) else most).to_numpy()
    return np.asarray((values >= least) & (values <= most + _TOLERANCE), bool)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _numbers(structs: pa.StructArray, name: str) -> np.ndarray:
    return np.asarray(pc.struct_field(structs, name).to_numpy(zero_copy_only=False))


def _mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(values.to_numpy(zero_copy_only=False), bool)
