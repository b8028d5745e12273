"""Small shards for tests: tars of pictures, and the rows that become of them."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa
from PIL import Image

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.grounding.grid import box_of
from pipeline.dataset.shards import Shard, shard_of
from pipeline.schema import (
    ANNOTATED,
    ANNOTATION,
    ANSWER_FIELDS,
    SAMPLE,
    Rejection,
    ShardEnd,
    annotation_column,
    answered_row,
)
from pipeline.spec.identity import JobRecord, ResolvedModel, identity_of
from pipeline.spec.job import JobSpec
from pipeline.storage import ObjectInfo

Member = tuple[str, bytes]
Row = dict[str, Any]


def picture(seed: int = 0, *, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A gradient; another seed gives other bytes."""
    red = Image.linear_gradient("L").resize(size)
    green = Image.new("L", size, (seed * 37) % 256)
    blue = Image.new("L", size, (seed // 7 * 37) % 256)
    buffer = io.BytesIO()
    Image.merge("RGB", (red, green, blue)).save(buffer, kind)
    return buffer.getvalue()


def pictures(count: int) -> list[Member]:
    return [(f"{i:04d}.jpg", picture(i)) for i in range(count)]


def tar(
    members: Iterable[Member | tuple[tarfile.TarInfo, bytes]],
    *,
    mode: str = "w",
    archive_format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """Files by name, or whatever a TarInfo says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=archive_format) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# ---- what the later stages make of them


MODEL = ResolvedModel(
    id="owner/model",
    commit="c" * 40,
    weights_digest="d" * 64,
    device="cpu",
    dtype="float32",
    no_repeat_ngram_size=3,
)


def job_record(spec: JobSpec | None = None, model: ResolvedModel = MODEL) -> JobRecord:
    spec = spec or JobSpec(input="in", output="out", task=("brief", "detailed"))
    identity = identity_of(spec, model)
    return JobRecord(
        spec=spec,
        model=model,
        identity=identity,
        fingerprint=identity.fingerprint,
        software={"python": "3.11.7"},
        created_at="2026-01-01T00:00:00+00:00",
    )


def a_shard(name: str = "a") -> Shard:
    return shard_of(ObjectInfo(uri=f"s3://in/{name}.tar", size_bytes=1000, etag=f"etag-{name}"))


def a_sample(index: int = 0, **changes: Any) -> Row:
    """A row of `schema.SAMPLE`."""
    return {
        "index": index,
        "key": f"{index:04d}",
        "uri": "s3://in/a.tar",
        "member": f"{index:04d}.jpg",
        "image_offset": 512,
        "image_size": 100,
        "image_sha256": bytes(32),
        "width": 40,
        "height": 30,
        "exif_orientation": 1,
        "metadata": None,
        "issues": [],
        **changes,
    }


def an_annotation(task: str = "brief", **changes: Any) -> Annotation:
    x1, y1, x2, y2 = box_of(264, 535)
    box = Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=264, lr=535, score=0.5, logp=-0.5)
    cat = Entity(phrase="a cat", start=12, end=17, phrase_logprob=-0.25, boxes=(box,))
    fields: dict[str, Any] = {
        "task": task,
        "prompt": "<grounding> An image of",
        "caption": "An image of a cat.",
        "prompt_chars": 11,
        "entities": (cat,),
        "issues": (),
        "finish_reason": "eos",
        "token_ids": (64007, 10, 5, 2),
        "token_logprobs": (-0.5, -0.25, -1.0, 0.0),
    }
    return Annotation(**{**fields, **changes})


def annotation_row(shard_id: str, sample: Row, annotation: Annotation) -> Row:
    """A row of `schema.ANNOTATION`, as it comes out of Arrow."""
    return answered_row(shard_id, sample, _answer(annotation))


@lru_cache(maxsize=1000)
def _answer(annotation: Annotation) -> Row:
    shard_ids, samples = pa.array([""], pa.string()), pa.array([a_sample()], SAMPLE)
    kind = pa.struct(list(ANNOTATION))
    [row] = annotation_column(shard_ids, samples, [annotation], kind).to_pylist()
    return {name: row[name] for name in ANSWER_FIELDS}


def annotated_row(shard: Shard, index: int, task: str = "brief", **changes: Any) -> Row:
    sample = a_sample(index, uri=shard.uri)
    row = annotation_row(shard.shard_id, sample, an_annotation(task, **changes))
    return {"shard_id": shard.shard_id, "annotated": row}


def rejected_row(
    shard: Shard, index: int, task: str = "brief", error_type: str = "corrupt_image"
) -> Row:
    rejection = Rejection(
        shard_id=shard.shard_id,
        index=index,
        task=task,
        key=f"{index:04d}",
        uri=shard.uri,
        member=None,
        stage="decode",
        error_type=error_type,
        message="the picture is broken",
        retriable=False,
    )
    return {"shard_id": shard.shard_id, "rejected": asdict(rejection)}


def end_row(shard: Shard, samples: int, **changes: Any) -> Row:
    return {"shard_id": shard.shard_id, "end": asdict(ShardEnd(samples=samples, **changes))}


def annotated_table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ANNOTATED)


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header with a right checksum, whatever its size field says."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[482] = kind == b"S"  # a sparse map that goes on in the next block
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NEGATIVE_SIZE = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256: back to its own header
HUGE_SIZE = b"\x80" + b"\x7f" * 11
