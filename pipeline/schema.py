"""The Arrow schemas of all files, and of the rows between the stages.

Only this module turns dataclasses into rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.errors import first_line
from kosmos2_core.grounding.grid import IMAGE_SIZE
from pipeline.columns import column_of

PIXELS_SIZE = 3 * IMAGE_SIZE * IMAGE_SIZE

BOX = pa.struct(
    [
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("ul", pa.int16(), nullable=False),
        pa.field("lr", pa.int16(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("logp", pa.float32()),
        pa.field("consistency", pa.float32()),
        pa.field("source", pa.string(), nullable=False),
    ]
)

ENTITY = pa.struct(
    [
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("phrase_logprob", pa.float32()),
        pa.field("boxes", pa.list_(BOX), nullable=False),
    ]
)

# The location of an image, and its properties.
_IMAGE = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("member", pa.string()),
    pa.field("image_offset", pa.int64()),
    pa.field("image_size", pa.int64()),
    pa.field("image_sha256", pa.binary(32), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("exif_orientation", pa.int8(), nullable=False),
)

ISSUES = pa.list_(pa.string())

# What is answered to a prompt about an image.
_ANSWER = (
    pa.field("prompt", pa.string(), nullable=False),
    pa.field("caption", pa.string(), nullable=False),
    pa.field("prompt_chars", pa.int32(), nullable=False),
    pa.field("entities", pa.list_(ENTITY), nullable=False),
    pa.field("finish_reason", pa.string(), nullable=False),
    pa.field("issues", ISSUES, nullable=False),
    pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
    pa.field("token_logprobs", pa.list_(pa.float16()), nullable=False),
)

ANNOTATION = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        *_IMAGE,
        *_ANSWER,
        pa.field("metadata", pa.string()),
    ]
)

REJECTION = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_type", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("retriable", pa.bool_(), nullable=False),
    ]
)

PLAN_OF_TARS = pa.schema(  # as it was when tars were the only input
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
    ]
)

PLAN = pa.schema(
    [
        *PLAN_OF_TARS,
        pa.field("kind", pa.string(), nullable=False),
        pa.field("listing", pa.string()),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("count", pa.int64()),
        pa.field("part_bytes", pa.int64()),
    ]
)

# Single-image objects: in a folder, or named by a manifest, which may not know their size and ETag.
LISTING = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("key", pa.string()),
        pa.field("metadata", pa.string()),
    ]
)

# Time of actors that a commit stands for: see `ActorTime`.
ACTOR_TIME = pa.struct(
    [
        pa.field(name, pa.float64(), nullable=False)
        for name in ("held_s", "busy_s", "gpu_held_s", "gpu_busy_s")
    ]
)

LEDGER = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("commit_id", pa.string(), nullable=False),
        pa.field("samples", pa.int32(), nullable=False),
        pa.field("annotated", pa.int32(), nullable=False),
        pa.field("rejected", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("reasons", pa.string(), nullable=False),  # JSON: rejections by error_type
        pa.field("actor_time", ACTOR_TIME),  # null: an earlier version made the commit
    ]
)

# How long an actor's engine has computed since it started (see `Usage` of kosmos2_core), and how
# many of its slots hold an image now.
USAGE = pa.struct(
    [
        pa.field("actor", pa.string(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),  # of this table
        pa.field("busy_s", pa.float64(), nullable=False),
        pa.field("span_s", pa.float64(), nullable=False),
        pa.field("slots", pa.int32(), nullable=False),
        pa.field("live", pa.int32(), nullable=False),
    ]
)

# A sample whose image is annotated elsewhere, and a row per task with the answers. An annotated
# image is named by the output that it is in ("" for the job's own), its shard and its index.
ORIGINAL = pa.struct(
    [
        pa.field("output", pa.string(), nullable=False),
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
    ]
)

_ANSWER_TO_TASK = pa.struct([pa.field("task", pa.string(), nullable=False), *_ANSWER])

ANSWERED = pa.struct(
    [
        pa.field("original", ORIGINAL, nullable=False),
        pa.field("answers", pa.list_(_ANSWER_TO_TASK), nullable=False),
    ]
)

COPY = pa.struct(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("original", ORIGINAL, nullable=False),
    ]
)

# Between the stages, each row is one of: a sample (with pixels, or answered) or its annotation, the
# note that a sample is a copy, a rejection, the use of an engine, or the end of a shard. The end is
# the last row of a shard's reader. It gives the number of samples, or the reason why the shard
# could not be read.
SAMPLE = pa.struct(
    [
        pa.field("index", pa.int32(), nullable=False),
        *_IMAGE,
        pa.field("metadata", pa.string()),
        pa.field("issues", ISSUES, nullable=False),
    ]
)

END = pa.struct(
    [
        pa.field("samples", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("message", pa.string()),
        pa.field("retriable", pa.bool_(), nullable=False),
        pa.field("read_s", pa.float64(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
    ]
)

READ = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("sample", SAMPLE),
        pa.field("pixels", pa.binary(PIXELS_SIZE)),  # uint8 [3, 224, 224]
        pa.field("answered", ANSWERED),
        pa.field("rejected", pa.struct(list(REJECTION))),
        pa.field("end", END),
    ]
)


# The commits of the source that `dedup` compared together.
ROUND = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("commit_id", pa.string(), nullable=False),
    ]
)

# Perceptual hashes of a shard's images, which `dedup --near` compares.
IMAGE_LOOKS = pa.schema(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("looks", pa.uint64(), nullable=False),
    ]
)

COPIES = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("original_output", pa.string(), nullable=False),
        pa.field("original_shard_id", pa.string(), nullable=False),
        pa.field("original_index", pa.int32(), nullable=False),
    ]
)


def annotated_schema(annotation: pa.Schema) -> pa.Schema:
    """Return the schema of an actor's rows, whose annotations are rows of `annotation`."""
    return pa.schema(
        [
            pa.field("shard_id", pa.string(), nullable=False),
            pa.field("annotated", pa.struct(list(annotation))),
            pa.field("copy", COPY),
            pa.field("rejected", pa.struct(list(REJECTION))),
            pa.field("usage", USAGE),
            pa.field("end", END),
        ]
    )


ANNOTATED = annotated_schema(ANNOTATION)


def annotation_schema(carried: Iterable[pa.Field]) -> pa.Schema:
    """Return `ANNOTATION` with columns for the samples' own fields (`fields.columns_of`)."""
    return pa.schema([*ANNOTATION, *carried])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """The reason why one sample has no annotation for one task.

    `stage` is read, decode or annotate; filter or dedup if the annotation was dropped later.
    """

    shard_id: str
    index: int
    task: str
    key: str
    uri: str
    member: str | None
    stage: str
    error_type: str
    message: str
    retriable: bool


OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEnd:
    """The reader's last row of a shard; `error_type` is None after a good end.

    An actor whose memory ran out ends its shards as well, with the error type `OUT_OF_MEMORY`.
    The task of the reader notes how long reading took: `read_s`, without waiting for room for the
    tables, and `cpu_s` of CPU time.
    """

    samples: int
    truncated: bool = False
    error_type: str | None = None
    message: str | None = None
    retriable: bool = False
    read_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An annotated image. `output` is the URL of its dataset, "" for that of the job."""

    output: str
    shard_id: str
    index: int


def unexpected_end(error: Exception) -> ShardEnd:
    """Return the end of a shard that an error of the program or its environment ended."""
    return ShardEnd(
        samples=0,
        error_type="unexpected_error",
        message=f"{type(error).__name__}: {first_line(error)}; the log of the worker has the "
        "traceback: mend its cause, or report it, then run the same command again",
        retriable=True,
    )


def annotation_column(
    shard_ids: pa.Array,
    samples: pa.StructArray,
    annotations: Sequence[Annotation],
    kind: pa.StructType,
) -> pa.StructArray:
    """Return rows of `ANNOTATION` from rows of `SAMPLE` and their annotations.

    `kind` is the type of the rows. Where it has more fields, the samples have them, too.
    """
    answers = column_of(annotations, _ANSWER_TO_TASK)
    issues = [
        [*of_sample, *annotation.issues]
        for of_sample, annotation in zip(
            samples.field("issues").to_pylist(), annotations, strict=True
        )
    ]
    columns = {
        **{field.name: samples.field(field.name) for field in samples.type},
        **{field.name: answers.field(field.name) for field in answers.type},
        "shard_id": shard_ids,
        "issues": pa.array(issues, ISSUES),
    }
    return pa.StructArray.from_arrays([columns[f.name] for f in kind], fields=list(kind))


def answered_row(
    shard_id: str, sample: Mapping[str, Any], answer: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a row of `ANNOTATION`, from a row of `SAMPLE` and an answer of `ANSWERED`."""
    issues = [*sample["issues"], *answer["issues"]]
    return {**sample, **answer, "shard_id": shard_id, "issues": issues}


def entity_of(row: Mapping[str, Any]) -> Entity:
    """Return the entity of an item of the column `entities`."""
    return Entity(**{**row, "boxes": tuple(Box(**box) for box in row["boxes"])})


ANSWER_FIELDS = tuple(field.name for field in _ANSWER_TO_TASK)
BOX_FIELDS = tuple(field.name for field in BOX)


def metadata_json(fields: Mapping[str, Any]) -> str:
    """Return a sample's own fields as strict JSON in valid UTF-8, which other engines can read.

    Raises ValueError for NaN and infinity.
    """
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")  # replaces lone surrogates
