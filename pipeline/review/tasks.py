"""Tasks of Label Studio: images with the boxes to judge, and the interface to judge them with."""

import base64
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from kosmos2_core.errors import ImageError
from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.shards import Shard
from pipeline.errors import SpecError
from pipeline.reading.row_images import Fetch, fetches, upright_bytes
from pipeline.reading.sample_reader import SampleReader
from pipeline.review.options import SampleOptions
from pipeline.review.sampling import ChosenBox
from pipeline.spec.fields import fields_of
from pipeline.storage import InputStore, OutputStore

INTERFACE_KEY = "interface.xml"
LABELS = ("right", "wrong")
REVIEW_FIELD = "review"  # of a task's data: which boxes it asks about
_FILE_BYTES = 50 * 10**6  # an import of Label Studio takes at most 200 MB
_SIDE, _JPEG_QUALITY = 1024, 85
_IMAGES_AHEAD = 32
_THREADS = 8
_COLUMNS = [
    *("shard_id", "index", "task", "key", "uri", "member", "image_offset", "image_size"),
    *("image_sha256", "exif_orientation", "width", "height", "caption", "entities", "metadata"),
]
_INTERFACE = f"""\
<View>
  <Header value="Is each box right? Set the label to wrong, delete a box, move it, or correct its \
phrase. Boxes that you leave as they are count as right."/>
  <Text name="caption" value="$caption"/>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="label" toName="image">
    <Label value="{LABELS[0]}" background="green"/>
    <Label value="{LABELS[1]}" background="red"/>
  </RectangleLabels>
  <TextArea name="phrase" toName="image" perRegion="true" editable="true"/>
</View>
"""

_Record = dict[str, Any]


def write_tasks(
    dataset: StoredDataset,
    inputs: InputStore,
    destination: OutputStore,
    chosen: Sequence[ChosenBox],
    options: SampleOptions,
) -> int:
    """Write a task for each caption with chosen boxes, in random order, and return their number.

    Raises SpecError if the destination is not empty or an image cannot be shown; PipelineError if
    an image or the dataset cannot be read.
    """
    if found := destination.list(""):
        raise SpecError(f"{destination.uri} is not empty ({found[0]}); choose another DEST")
    tasks = [_text(task) for task in _tasks(dataset, inputs, chosen, options)]
    random.Random(options.seed).shuffle(tasks)  # noqa: S311
    destination.put(INTERFACE_KEY, _INTERFACE.encode())
    for number, part in enumerate(_parts(tasks)):
        destination.put(f"tasks/{number:05d}.json", b"[" + b",\n".join(part) + b"]")
    return len(tasks)


def _text(task: _Record) -> bytes:
    return json.dumps(task, allow_nan=False, separators=(",", ":")).encode()


def _parts(tasks: Sequence[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    for task in tasks:
        if part and sum(map(len, part)) + len(task) > _FILE_BYTES:
            yield part
            part = []
        part.append(task)
    if part:
        yield part


def _tasks(
    dataset: StoredDataset,
    inputs: InputStore,
    chosen: Sequence[ChosenBox],
    options: SampleOptions,
) -> Iterator[_Record]:
    by_shard = defaultdict[str, dict[tuple[int, str], list[ChosenBox]]](lambda: defaultdict(list))
    for box in chosen:
        by_shard[box.place.shard_id][box.place.index, box.place.task].append(box)
    reader = SampleReader.of_job(inputs, dataset.record.identity)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sample") as pool:
        for shard in dataset.plan.shards:
            if of_rows := by_shard.get(shard.shard_id):
                calls = _of_shard(dataset, shard, of_rows, reader, options)
                yield from in_order(pool, calls, ahead=_IMAGES_AHEAD)


def _of_shard(
    dataset: StoredDataset,
    shard: Shard,
    chosen: Mapping[tuple[int, str], list[ChosenBox]],
    reader: SampleReader,
    options: SampleOptions,
) -> Iterator[partial[_Record]]:
    with open_commit(dataset.store, shard.shard_id) as commit:
        table = commit.parquet.read(columns=_COLUMNS)
    indices = pa.array(sorted({index for index, _ in chosen}), table.schema.field("index").type)
    rows = [
        row
        for row in table.filter(pc.is_in(table["index"], indices)).to_pylist()
        if (row["index"], row["task"]) in chosen
    ]
    about = {
        "fingerprint": dataset.record.fingerprint,
        "by": options.by,
    }
    for row, fetch in zip(rows, fetches(rows, shard, reader), strict=True):
        boxes = chosen[row["index"], row["task"]]
        exif = dataset.record.identity.exif
        yield partial(_task, row, boxes, about, fetch, options=options, exif=exif)


def _task(
    row: _Record,
    chosen: Sequence[ChosenBox],
    about: _Record,
    fetch: Fetch,
    *,
    options: SampleOptions,
    exif: Any,
) -> _Record:
    asked, regions = [], list[_Record]()
    for number, each in enumerate(sorted(chosen, key=lambda c: (c.place.entity, c.place.box))):
        entity = row["entities"][each.place.entity]
        box = entity["boxes"][each.place.box]
        region = f"box{number}"
        asked.append(
            {
                "region": region,
                "entity": each.place.entity,
                "box": each.place.box,
                "phrase": entity["phrase"],
                "score": each.score,
                "probability": each.probability,
                "xyxy": [box[name] for name in ("x1", "y1", "x2", "y2")],
            }
        )
        regions += box_regions(
            region,
            [box[name] for name in ("x1", "y1", "x2", "y2")],
            size=(row["width"], row["height"]),
            label=LABELS[0],
            phrase=entity["phrase"],
        )
    names = ("caption", "key", "task", "shard_id", "index", "uri", "member")
    data = {name: row[name] for name in names}
    image = _url(row) if options.images == "url" else _data_uri(row, fetch, exif)
    return {
        "data": {**data, "image": image, REVIEW_FIELD: {**about, "boxes": asked}},
        "predictions": [{"model_version": about["fingerprint"], "result": regions}],
    }


def box_regions(
    region_id: str,
    xyxy: Sequence[float],
    *,
    size: tuple[int, int],
    label: str,
    phrase: str,
    score: float | None = None,
) -> list[_Record]:
    """Return a box as Label Studio has it: the rectangle and its phrase, two results with one id.

    `size` is the width and height of the image in pixels. A rectangle is in percent of them.
    """
    x1, y1, x2, y2 = xyxy
    width, height = 100 * (x2 - x1), 100 * (y2 - y1)
    place = {"x": 100 * x1, "y": 100 * y1, "width": width, "height": height, "rotation": 0}
    common = {
        "id": region_id,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }
    rectangle = {"from_name": "label", "type": "rectanglelabels"}
    text = {"from_name": "phrase", "type": "textarea"}
    scored = {} if score is None else {"score": score}
    return [
        {**common, **rectangle, "value": {**place, "rectanglelabels": [label]}, **scored},
        {**common, **text, "value": {**place, "text": [phrase]}},
    ]


def _url(row: _Record) -> str:
    for found in (fields_of(row["metadata"]).get("url"), row["uri"]):
        is_whole = row["member"] is None or found != row["uri"]
        if isinstance(found, str) and found.startswith(("http://", "https://")) and is_whole:
            return found
    raise SpecError(
        f"{row['shard_id']} #{row['index']} has no field `url` and is not on the web; choose "
        "--images data"
    )


def _data_uri(row: _Record, fetch: Fetch, exif: Any) -> str:
    """Return the image as the model saw it, as a small JPEG in a data URI."""
    try:
        upright = upright_bytes(fetch(), orientation=row["exif_orientation"], exif=exif)
        with Image.open(io.BytesIO(upright)) as image:
            small = image.convert("RGB")
    except (ImageError, OSError, ValueError) as error:
        raise SpecError(
            f"the image of {row['shard_id']} #{row['index']} cannot be shown ({error}); choose "
            "another --seed"
        ) from error
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
