"""The Arrow schemas: the output contract, spelled out column by column."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kosmos2_core.annotation import Box, Entity
from pipeline.schema import (
    ANNOTATED,
    ANNOTATION,
    LEDGER,
    PLAN,
    READ,
    REJECTION,
    metadata_json,
)
from tests.support.tars import a_sample, a_shard, an_annotation, annotation_row, rejected_row

BOX = (
    "x1: float not null, y1: float not null, x2: float not null, y2: float not null, "
    "ul: int16 not null, lr: int16 not null, score: float, logp: float, "
    "consistency: float, source: string not null"
)
ENTITY = (
    "phrase: string not null, start: int32 not null, end: int32 not null, phrase_logprob: float, "
    f"boxes: list<item: struct<{BOX}>> not null"
)
PRIMARY_KEY = ["shard_id: string not null", "index: int32 not null", "task: string not null"]
WAY_BACK = ["key: string not null", "uri: string not null", "member: string"]

CONTRACT = {
    "annotations": (
        ANNOTATION,
        [
            *PRIMARY_KEY,
            *WAY_BACK,
            "image_offset: int64",
            "image_size: int64",
            "image_sha256: fixed_size_binary[32] not null",
            "width: int32 not null",
            "height: int32 not null",
            "exif_orientation: int8 not null",
            "prompt: string not null",
            "caption: string not null",
            "prompt_chars: int32 not null",
            f"entities: list<item: struct<{ENTITY}>> not null",
            "finish_reason: string not null",
            "issues: list<item: string> not null",
            "token_ids: list<item: int32> not null",
            "token_logprobs: list<item: halffloat> not null",
            "metadata: string",
        ],
    ),
    "rejected": (
        REJECTION,
        [
            *PRIMARY_KEY,
            *WAY_BACK,
            "stage: string not null",
            "error_type: string not null",
            "message: string not null",
            "retriable: bool not null",
        ],
    ),
    "plan": (
        PLAN,
        [
            "shard_id: string not null",
            "uri: string not null",
            "size_bytes: int64 not null",
            "etag: string not null",
            "kind: string not null",
            "listing: string",
            "first: int64 not null",
            "count: int64",
            "part_bytes: int64",
        ],
    ),
    "ledger": (
        LEDGER,
        [
            "shard_id: string not null",
            "commit_id: string not null",
            "samples: int32 not null",
            "annotated: int32 not null",
            "rejected: int32 not null",
            "truncated: bool not null",
            "reasons: string not null",
            "actor_time: struct<held_s: double not null, busy_s: double not null, "
            "gpu_held_s: double not null, gpu_busy_s: double not null>",
        ],
    ),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_a_file_has_exactly_the_columns_of_the_contract(name: str) -> None:
    schema, expected = CONTRACT[name]
    assert [
        f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema
    ] == expected


def test_rows_between_the_stages_hold_the_rows_of_the_files() -> None:
    assert READ.names == ["shard_id", "sample", "pixels", "answered", "rejected", "end"]
    assert ANNOTATED.names == ["shard_id", "annotated", "copy", "rejected", "usage", "end"]
    assert ANNOTATED.field("annotated").type == pa.struct(list(ANNOTATION))
    assert ANNOTATED.field("rejected").type == READ.field("rejected").type
    assert READ.field("pixels").type == pa.binary(3 * 224 * 224)


def through_parquet(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], schema=schema), buffer)
    table = pq.read_table(buffer)
    assert table.schema.equals(schema)
    [found] = table.to_pylist()
    return found


def test_an_annotation_survives_parquet_in_every_field() -> None:
    model = Box(
        x1=1 / 3, y1=0.1, x2=0.7, y2=1.0, ul=0, lr=1023, score=0.1, logp=-1 / 3, consistency=0.5
    )
    given = Box(x1=0.0, y1=0.0, x2=1.0, y2=1.0, ul=5, lr=1000, source="prompt")
    entities = (
        Entity(phrase="a cat", start=12, end=17, phrase_logprob=-0.1, boxes=(model, given)),
        Entity(phrase="cat", start=14, end=17, boxes=()),
    )
    annotation = an_annotation(
        entities=entities, issues=("truncated",), token_logprobs=(-0.1, -12.345, 0.0)
    )
    sample = a_sample(7, issues=["metadata_invalid"], metadata='{"a": "ü"}', image_sha256=b"s" * 32)
    row = annotation_row("shard", sample, annotation)
    f = lambda value: float(np.float32(value))  # noqa: E731
    assert through_parquet(row, ANNOTATION) == {
        **{"shard_id": "shard", "index": 7, "task": "brief", "key": "0007", "uri": "s3://in/a.tar"},
        **{"member": "0007.jpg", "image_offset": 512, "image_size": 100},
        **{"image_sha256": b"s" * 32, "width": 40, "height": 30, "exif_orientation": 1},
        **{"prompt": "<grounding> An image of", "caption": "An image of a cat."},
        **{"prompt_chars": 11, "finish_reason": "eos"},
        "entities": [
            {
                **{"phrase": "a cat", "start": 12, "end": 17, "phrase_logprob": f(-0.1)},
                "boxes": [
                    {
                        **{"x1": f(1 / 3), "y1": f(0.1), "x2": f(0.7), "y2": 1.0},
                        **{
                            "ul": 0,
                            "lr": 1023,
                            "score": f(0.1),
                            "logp": f(-1 / 3),
                            "consistency": 0.5,
                        },
                        "source": "model",
                    },
                    {
                        **{"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "ul": 5, "lr": 1000},
                        **{"score": None, "logp": None, "consistency": None, "source": "prompt"},
                    },
                ],
            },
            {"phrase": "cat", "start": 14, "end": 17, "phrase_logprob": None, "boxes": []},
        ],
        "issues": ["metadata_invalid", "truncated"],
        "token_ids": [64007, 10, 5, 2],
        "token_logprobs": [float(np.float16(value)) for value in (-0.1, -12.345, 0.0)],
        "metadata": '{"a": "ü"}',
    }


def test_a_clean_annotation_has_empty_lists_and_no_nulls_for_them() -> None:
    row = annotation_row("shard", a_sample(), an_annotation(entities=(), token_ids=()))
    found = through_parquet(row, ANNOTATION)
    assert (found["entities"], found["issues"], found["token_ids"]) == ([], [], [])


@pytest.mark.parametrize(
    ("before", "phrase"),
    [
        ("An image of ", "a 🐈"),
        ("🎉🎉 ", "a cat"),
        ("A flag 🇯🇵 and ", "👩‍👩‍👧 a family"),
        ("𝒜 ", "𠜎 sign"),
        ("e\u0301 ", "n\u0303and\u00fa"),
    ],
)
def test_offsets_count_characters_whatever_they_are(before: str, phrase: str) -> None:
    start, end = len(before), len(before) + len(phrase)
    entity = Entity(phrase=phrase, start=start, end=end, boxes=())
    annotation = an_annotation(caption=f"{before}{phrase}.", entities=(entity,))
    found = through_parquet(annotation_row("shard", a_sample(), annotation), ANNOTATION)
    [entity_row] = found["entities"]
    assert found["caption"][entity_row["start"] : entity_row["end"]] == entity_row["phrase"]
    assert entity_row["phrase"] == phrase


def test_a_rejection_survives_parquet() -> None:
    row = rejected_row(a_shard(), 3)["rejected"]
    assert through_parquet(row, REJECTION) == row


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        metadata_json({"a": [value]})
