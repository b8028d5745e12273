"""The same pictures in every form of input that there is."""

import base64
import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.listings import HeldListings
from pipeline.dataset.shards import Shard
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.reading.sample_reader import SampleReader
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore
from tests.support.tars import tar

Write = Callable[[Path, Sequence["Scene"]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    name: str
    data: bytes
    extension: str = "jpg"

    @property
    def file(self) -> str:
        return f"{self.name}.{self.extension}"

    @property
    def fields(self) -> dict[str, Any]:
        return {"words": f"about {self.name}", "number": len(self.name)}


def _tar(folder: Path, scenes: Sequence[Scene], mode: str = "w") -> None:
    members = [
        member
        for scene in scenes
        for member in (
            (scene.file, scene.data),
            (f"{scene.name}.json", json.dumps(scene.fields).encode()),
        )
    ]
    name = "a.tar.gz" if mode == "w:gz" else "a.tar"
    (folder / name).write_bytes(tar(members, mode=mode))


def _parquet(folder: Path, scenes: Sequence[Scene]) -> None:
    """Plain bytes, in row groups of three."""
    rows = [{"key": s.name, "jpg": s.data, **s.fields} for s in scenes]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)


def _hugging_face(folder: Path, scenes: Sequence[Scene]) -> None:
    """As `datasets` pushes them to the hub."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "README.md").write_text("a card")
    rows = [_image_row(s) for s in scenes]
    schema = pa.schema(
        [
            pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            pa.field("key", pa.string()),
            pa.field("words", pa.string()),
            pa.field("number", pa.int64()),
        ],
        metadata={"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'},
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet", row_group_size=3)


def _image_row(scene: Scene) -> dict[str, Any]:
    image = {"bytes": scene.data, "path": scene.file}
    return {"image": image, "key": scene.name, **scene.fields}


def _arrow(folder: Path, scenes: Sequence[Scene]) -> None:
    save_to_disk(folder, pa.Table.from_pylist([_image_row(s) for s in scenes]))


def save_to_disk(folder: Path, table: pa.Table) -> None:
    """As a `datasets.Dataset` does it; made by hand, since importing it takes seconds."""
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text("{}")


def _files(folder: Path, scenes: Sequence[Scene]) -> None:
    for scene in scenes:
        path = folder / "deep" / scene.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(scene.data)


def _beside(folder: Path, scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """Pictures in another folder, and the rows of a manifest that names them."""
    pictures = folder.parent / f"{folder.name}-pictures"
    pictures.mkdir(exist_ok=True)
    for scene in scenes:
        (pictures / scene.file).write_bytes(scene.data)
    return [
        {"file_name": f"../{pictures.name}/{s.file}", "key": s.name, **s.fields} for s in scenes
    ]


def _delimited(folder: Path, scenes: Sequence[Scene], name: str, delimiter: str = ",") -> None:
    rows, text = _beside(folder, scenes), io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    table.writeheader()
    table.writerows(rows)
    data = text.getvalue().encode()
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def _json_lines(folder: Path, scenes: Sequence[Scene]) -> None:
    lines = (json.dumps(row) + "\n" for row in _beside(folder, scenes))
    (folder / "metadata.jsonl").write_text("".join(lines))


def _json(folder: Path, scenes: Sequence[Scene]) -> None:
    """As COCO has it: one object, with the list of images inside."""
    document = {"info": {"year": 2024}, "images": _beside(folder, scenes), "annotations": []}
    (folder / "a.json").write_text(json.dumps(document))


def _parquet_manifest(folder: Path, scenes: Sequence[Scene]) -> None:
    pq.write_table(pa.Table.from_pylist(_beside(folder, scenes)), folder / "a.parquet")


def _arrow_file(folder: Path, scenes: Sequence[Scene]) -> None:
    """Feather, compressed."""
    table = pa.Table.from_pylist([_image_row(s) for s in scenes])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(folder / "a.arrow", table.schema, options=options) as file:
        file.write_table(table, max_chunksize=3)


def _base64(folder: Path, scenes: Sequence[Scene]) -> None:
    rows = [{"key": s.name, "image": base64.b64encode(s.data).decode(), **s.fields} for s in scenes]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)


def _lists_of_bytes(folder: Path, scenes: Sequence[Scene]) -> None:
    rows = [{"key": s.name, "image": list(s.data), **s.fields} for s in scenes]
    table = pa.Table.from_pylist(rows)
    image = table["image"].cast(pa.list_(pa.uint8()))
    table = table.set_column(table.schema.get_field_index("image"), "image", image)
    pq.write_table(table, folder / "a.parquet", row_group_size=3)


FORMS: dict[str, Write] = {
    "tar": _tar,
    "tar.gz": lambda folder, scenes: _tar(folder, scenes, "w:gz"),
    "parquet": _parquet,
    "hugging-face": _hugging_face,
    "base64": _base64,
    "list<uint8>": _lists_of_bytes,
    "arrow": _arrow,
    "arrow-file": _arrow_file,
    "files": _files,
    "csv": lambda folder, scenes: _delimited(folder, scenes, "a.csv"),
    "tsv": lambda folder, scenes: _delimited(folder, scenes, "a.tsv", "\t"),
    "csv.gz": lambda folder, scenes: _delimited(folder, scenes, "a.csv.gz"),
    "jsonl": _json_lines,
    "json": _json,
    "parquet-manifest": _parquet_manifest,
}
_TABLES = ("parquet", "hugging-face", "base64", "list<uint8>")
_MANIFESTS = ("csv", "tsv", "csv.gz", "jsonl", "json", "parquet-manifest")
LISTED_FORMS = ("files", *_MANIFESTS)
KINDS = {
    **dict.fromkeys(("tar", "tar.gz"), "webdataset"),
    **dict.fromkeys(_TABLES, "parquet"),
    **dict.fromkeys(("arrow", "arrow-file"), "arrow"),
    "files": "files",
    **dict.fromkeys(_MANIFESTS, "manifest"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a job finds in a folder, cut into shards of about four samples."""

    spec: JobSpec
    shards: list[Shard]
    reader: SampleReader


def planned(folder: Path, **options: Any) -> Planned:
    spec = JobSpec(**{"input": str(folder), "output": "unused", "samples_per_shard": 4, **options})
    listings = HeldListings()
    reader = SampleReader(
        store=InputStore(spec.input_storage),
        image_column=spec.image_column,
        listings=listings,
    )
    return Planned(spec=spec, shards=cut(discover(spec), spec, listings).shards, reader=reader)
