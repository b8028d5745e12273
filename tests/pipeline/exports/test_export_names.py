"""Odd names and words in each export: no two images share a name, and each leads to its own."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kosmos2_core.annotation import Annotation, Entity
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.shards import shard_of
from pipeline.exports.categories import Categories
from pipeline.exports.example import Example, ImageFile, example_of
from pipeline.exports.exporting import export_dataset
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.formats.webdataset import TarPart
from pipeline.exports.formats.yolo import data_yaml
from pipeline.exports.options import ExportOptions, FormatName
from pipeline.exports.references import root_of
from pipeline.storage import InputStore, ObjectInfo, open_output
from tests.support.commits import dataset_of
from tests.support.export_contract import sidecar_rows
from tests.support.tars import Row, a_sample, an_annotation, annotation_row, picture, tar

# ---- inputs whose images have names in common, or odd ones

ODD = (
    *("with space", "-rf", "quotes '\"`", "new\nline", "tab\t", "<b>bold</b>&amp;", "C:\\a"),
    *("100%41", "{{ 7*7 }}", "a#b?c=d&e", "naïve 日本", "🐈\u200d⬛", "\u202egnp", "\u2028"),
    *("a,b;c|d", "a.b", "$(id)"),
)
ALIKE = ("a", "sub/a", "A", "sub/A", "sub/deep/a", "other/a")


def pictures(names: Any) -> dict[str, bytes]:
    return {f"{name}.jpg": picture(i) for i, name in enumerate(names)}


def in_folder(folder: Path) -> dict[str, bytes]:
    found = pictures([*ALIKE, *ODD])
    found |= {"a.JPG": picture(90), "sub/a.JPG": picture(91)}
    for name, data in found.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return found


def in_tars(folder: Path) -> dict[str, bytes]:
    """The same members in each, and some that would leave the archive."""
    found = {}
    for number, place in enumerate(("x", "y", "x/z")):
        (folder / "in" / place).mkdir(parents=True, exist_ok=True)
        names = [name for name in (*ALIKE, *ODD) if "." not in name]
        members = {f"{n}.jpg": picture(100 * number + i) for i, n in enumerate(names)}
        outside = {
            name: picture(100 * number + 60 + i)
            for i, name in enumerate(("../../up.jpg", "/up.jpg"))
        }
        (folder / "in" / place / "part.tar").write_bytes(tar([*members.items(), *outside.items()]))
        found |= {f"{place}/part.tar/{name}": data for name, data in members.items()}
        inside = zip(range(len(members), len(members) + 2), outside.values(), strict=True)
        found |= {f"{place}/part.tar/{index}": data for index, data in inside}
    return found


def in_parquet(folder: Path) -> dict[str, bytes]:
    """Each row has the same path, as some writers leave it."""
    found = {}
    for number, place in enumerate(("x", "y")):
        data = [picture(10 * number + i) for i in range(6)]
        rows = [{"image": {"bytes": one, "path": "image.jpg"}} for one in data]
        path = folder / "in" / place / "train.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        found |= {f"{place}/train.parquet/{i}": one for i, one in enumerate(data)}
    return found


def in_manifest(folder: Path) -> dict[str, bytes]:
    """Beside it, in two other folders, and with one key for all."""
    found, lines = {}, []
    for number, place in enumerate(("in", "one", "two")):
        (folder / place).mkdir()
        (folder / place / "a.jpg").write_bytes(data := picture(number))
        name = "a.jpg" if place == "in" else str(folder / place / "a.jpg")
        found[name] = data
        lines.append(json.dumps({"file_name": name, "key": "same"}) + "\n")
    (folder / "in" / "metadata.jsonl").write_text("".join(lines))
    return found


INPUTS: Mapping[str, Callable[[Path], dict[str, bytes]]] = {
    "files": in_folder,
    "webdataset": in_tars,
    "parquet": in_parquet,
    "manifest": in_manifest,
}


def odd_answer(sample: Row) -> list[Annotation]:
    """One of the odd texts is the phrase."""
    odd = f"x{ODD[sample['index'] % len(ODD)]}x"
    [cat] = an_annotation().entities
    entity = Entity(phrase=odd, start=12, end=12 + len(odd), boxes=cat.boxes)
    return [an_annotation(caption=f"An image of {odd}.", entities=(entity,))]


Made = tuple[StoredDataset, dict[str, bytes]]


@pytest.fixture(scope="module", params=INPUTS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The dataset, and the images by the names that lead to them."""
    folder = tmp_path_factory.mktemp("dataset")
    found = INPUTS[request.param](folder)
    job = dataset_of(
        folder / "in",
        folder / "out",
        odd_answer,
        samples_per_shard=4,
        input_format=request.param,
    )
    assert len(job.plan.shards) > 1 or request.param == "manifest"
    return job, found


# ---- what a format says of each image: a name, the image's bytes if embedded, what is said

Seen = list[tuple[str, bytes | None, str | None]]


def text_of(path: Path) -> Any:
    return json.loads(path.read_text())


def embedded(folder: Path, name: str) -> bytes | None:
    path = folder / name
    return path.read_bytes() if path.exists() else None


def of_hugging_face(folder: Path) -> Seen:
    rows = pq.read_table(folder / "data").to_pylist()
    return [
        (row["image"]["path"], row["image"]["bytes"], row["entities"][0]["phrase"])
        if "image" in row
        else (f"{row['shard_id']} {row['index']}", None, row["entities"][0]["phrase"])
        for row in rows
    ]


def of_boxes(folder: Path) -> Seen:
    rows = pq.read_table(folder / "data").to_pylist()
    return [(str(row["image_id"]), None, row["phrase"]) for row in rows]


def of_grit(folder: Path) -> Seen:
    rows = pq.read_table(folder / "data").to_pylist()
    spans = [tuple(map(int, row["noun_chunks"][0][:2])) for row in rows]
    return [
        (str(row["id"]), None, row["caption"][start:end])
        for row, (start, end) in zip(rows, spans, strict=True)
    ]


def of_coco(folder: Path) -> Seen:
    found = text_of(folder / "annotations" / "train-00000.json")
    phrases = {each["image_id"]: each["phrase"] for each in found["annotations"]}
    return [
        (each["file_name"], embedded(folder / "images", each["file_name"]), phrases[each["id"]])
        for each in found["images"]
    ]


def of_odvg(folder: Path) -> Seen:
    found = map(json.loads, (folder / "data" / "train-00000.jsonl").read_text().splitlines())
    return [
        (
            line["filename"],
            embedded(folder / "images", line["filename"]),
            line["grounding"]["regions"][0]["phrase"],
        )
        for line in found
    ]


def of_voc(folder: Path) -> Seen:
    pages = [ElementTree.parse(path) for path in (folder / "Annotations").iterdir()]
    names = [page.findtext("filename") or "" for page in pages]
    return [
        (name, embedded(folder / "JPEGImages", name), page.findtext("object/phrase"))
        for name, page in zip(names, pages, strict=True)
    ]


def of_yolo(folder: Path) -> Seen:
    labels = (folder / "labels" / "train").iterdir()
    return [
        (path.stem, embedded(folder / "images" / "train", f"{path.stem}.jpg"), None)
        for path in labels
    ]


def of_webdataset(folder: Path) -> Seen:
    with tarfile.open(folder / "data" / "train-00000.tar") as archive:
        found = {each.name: archive.extractfile(each) for each in archive}
        data = {name: file.read() for name, file in found.items() if file is not None}
    return [
        (
            name.removesuffix(".json"),
            data.get(name.replace(".json", ".jpg")),
            json.loads(text)["entities"][0]["phrase"],
        )
        for name, text in data.items()
        if name.endswith(".json")
    ]


def of_label_studio(folder: Path) -> Seen:
    found = text_of(folder / "tasks" / "train-00000.json")
    seen: Seen = []
    for task in found:
        name = task["data"]["image"].removeprefix("/data/local-files/?d=")
        [_, phrase] = task["predictions"][0]["result"]
        seen.append((name, embedded(folder, name), phrase["value"]["text"][0]))
    return seen


def of_fiftyone(folder: Path) -> Seen:
    found = text_of(folder / "labels" / "train-00000.json")["labels"]
    return [
        (name, embedded(folder / "data", f"{name}.jpg"), boxes[0]["label"])
        for name, boxes in found.items()
    ]


def of_sidecar(folder: Path) -> Seen:
    seen: Seen = []
    for path in (folder / "data").iterdir():
        for row in sidecar_rows(path):
            (entity,) = row["brief"]["entities"]
            seen.append((f"{path.name} {row['index']}", None, entity["phrase"]))
    return seen


READERS: Mapping[FormatName, Callable[[Path], Seen]] = {
    "hf": of_hugging_face,
    "boxes": of_boxes,
    "coco": of_coco,
    "grit": of_grit,
    "webdataset": of_webdataset,
    "label-studio": of_label_studio,
    "fiftyone": of_fiftyone,
    "yolo": of_yolo,
    "odvg": of_odvg,
    "voc": of_voc,
    "sidecar": of_sidecar,
}
REFERRING: tuple[FormatName, ...] = ("coco", "odvg", "voc")


def test_each_format_has_a_reader() -> None:
    assert READERS.keys() == EXPORT_FORMATS.keys()


def exported(job: StoredDataset, folder: Path, name: FormatName, images: str) -> Seen:
    options = ExportOptions(format=name, images=images)
    export_dataset(job, InputStore(), open_output(str(folder)), options)
    return READERS[name](folder)


def printable(text: str) -> str:
    """As XML can hold it."""
    return "".join(c if c >= " " else " " for c in text)


def said(job: StoredDataset) -> Counter[str]:
    files = [io.BytesIO(job.store.get(key).data) for key in job.store.list("annotations")]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return Counter(entity["phrase"] for row in rows for entity in row["entities"])


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_every_image_has_a_name_of_its_own(name: FormatName, made: Made, tmp_path: Path) -> None:
    """Also where a file system takes no notice of case; the words come through as they are."""
    job, pictures = made
    can_embed = EXPORT_FORMATS[name].can_embed
    seen = exported(job, tmp_path, name, "embed" if can_embed else "reference")
    names = [name.casefold() for name, _, _ in seen]
    assert len(set(names)) == len(names) == len(pictures)
    if can_embed:
        assert Counter(data for _, data, _ in seen) == Counter(pictures.values())
        written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
        assert len({str(p.relative_to(tmp_path)).casefold() for p in written}) == len(written)
        assert all(c.isalnum() or c in "-_." for path in written for c in path.name)
    if name != "yolo":
        phrases = Counter(phrase for _, _, phrase in seen)
        expected = said(job)
        if name == "voc":
            expected = Counter(map(printable, expected.elements()))
        assert phrases == expected


@pytest.mark.parametrize("name", REFERRING)
def test_an_image_that_is_referred_to_is_named_by_its_path(
    name: FormatName, made: Made, tmp_path: Path
) -> None:
    """From the folder of all inputs; on into an archive with the member, into a table the row."""
    job, pictures = made
    seen = exported(job, tmp_path, name, "reference")
    names = pictures if name != "voc" else map(printable, pictures)
    assert sorted(name for name, _, _ in seen) == sorted(names)
    assert not any(".." in name.split("/") for name, _, _ in seen)


def test_an_image_in_a_folder_is_found_under_its_name(tmp_path: Path) -> None:
    """As readers of COCO do it: the folder and the name, joined."""
    pictures = in_folder(tmp_path)
    job = dataset_of(tmp_path / "in", tmp_path / "out", odd_answer, samples_per_shard=4)
    seen = exported(job, tmp_path / "export", "coco", "reference")
    found = {(tmp_path / "in" / name).read_bytes() for name, _, _ in seen}
    assert found == set(pictures.values())


@pytest.mark.parametrize(
    ("uris", "root"),
    [
        (("s3://b/x/a.tar", "s3://b/x/b.tar"), "s3://b/x/"),
        (("s3://b/x/a.tar", "s3://b/xy/b.tar"), "s3://b/"),
        (("s3://b/a.tar", "s3://c/b.tar"), "s3://"),
        (("s3://b/a.tar", "gs://b/a.tar"), ""),
        (("file:///in/",), "file:///in/"),
        (("file:///a.tar", "file:///in/a.tar"), "file:///"),
        ((), ""),
    ],
)
def test_the_root_is_the_innermost_folder_of_all_inputs(uris: tuple[str, ...], root: str) -> None:
    shards = [shard_of(ObjectInfo(uri=uri, size_bytes=1, etag="")) for uri in uris]
    assert root_of(shards) == root


# ---- formats that are particular about names


def an_example(shard_id: str, task: str) -> Example:
    row = annotation_row(shard_id, a_sample(), an_annotation(task))
    options = ExportOptions(format="webdataset")
    return example_of(row, ordinal=0, options=options, has_task_in_name=True, file_name="a.jpg")


def test_a_tar_takes_the_longest_names_there_are() -> None:
    """Of a shard with a long stem, of a part of it, and of a task of one's own."""
    part = TarPart()
    example = an_example("s" * 60 + "-0000000-0123456789ab", "t" * 40)
    data = picture()
    part.add(replace(example, image=ImageFile(data=data, extension="jpg")))
    [content] = part.finish().values()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == [f"{example.name}.jpg", f"{example.name}.json"]
        assert len(example.name) > 100


@pytest.mark.parametrize("name", [*ODD, "\x7f", "\x85", "yes", "null", "0", "- a", "a: b", "#"])
def test_yaml_holds_any_class(name: str) -> None:
    assert yaml.safe_load(data_yaml([name], ["train"]))["names"] == {0: name}


def test_yaml_without_classes_has_none() -> None:
    found = yaml.safe_load(data_yaml(Categories(lambda _: None).names, ["fit"]))
    assert found == {"fit": "images/fit", "train": "images/fit", "val": "images/fit", "names": {}}
