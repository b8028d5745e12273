"""Exports in sections, here without Ray: together they are what one section is."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kosmos2_core.annotation import Box, Entity
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import EXPORT_KEY, EXPORT_SHARDS_KEY
from pipeline.errors import Conflict, LeaseHeld, SpecError
from pipeline.exports.coverage import Coverage
from pipeline.exports.exporting import README_KEY, export_dataset
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.croissant import CROISSANT_KEY
from pipeline.exports.sections import ExportContext, Section, Written, export_section, in_turn
from pipeline.storage import InputStore, open_output
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, pictures

SHARDS, IMAGES = 5, 4
TWO_SPLITS = ("train=1", "test=1")


def entity(phrase: str, start: int) -> Entity:
    box = Box(x1=0.25, y1=0.25, x2=0.5, y2=0.75, ul=0, lr=1023, score=0.5, logp=-1.0)
    return Entity(phrase=phrase, start=start, end=start + len(phrase), boxes=(box,))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    """The first shard is not committed, and each has an image that cannot be read."""
    said = [
        an_annotation(
            caption=f"An image of a cat and {'a dog' if i % 2 else 'nothing'}.",
            prompt_chars=11,
            entities=(entity("a cat", 12), *([entity("a dog", 22)] if i % 2 else [])),
        )
        for i in range(IMAGES + 1)
    ]
    members = [*pictures(IMAGES), ("9.jpg", b"broken")]
    shards = {f"{i}.tar": (members, [[one] for one in said] if i else None) for i in range(SHARDS)}
    return write_dataset(tmp_path_factory.mktemp("dataset"), shards)


def exported(job: StoredDataset, folder: Path, name: str, **options: Any) -> Coverage:
    chosen = ExportOptions(format=name, **{"split": TWO_SPLITS, **options})
    return export_dataset(job, InputStore(), open_output(str(folder)), chosen)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (EXPORT_KEY, EXPORT_SHARDS_KEY, ".lock")
    }


# ---- what a format holds, in its order, whatever its files are called


def parquet(folder: Path) -> list[Any]:
    return [row for path in paths(folder, "data") for row in pq.read_table(path).to_pylist()]


def coco(folder: Path) -> list[Any]:
    """All but the ids of annotations; categories and results of each file go with its images."""
    found: list[Any] = []
    for path in paths(folder, "annotations"):
        content = json.loads(path.read_text())
        of_image: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            del annotation["id"]
            of_image[annotation["image_id"]].append(annotation)
        for result in json.loads((folder / "results" / path.name).read_text()):
            of_image[result["image_id"]].append(result)
        found += [(i, of_image[i["id"]], content["categories"]) for i in content["images"]]
    return found


def tars(folder: Path) -> list[Any]:
    def members(path: Path) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, file.read()

    return [member for path in paths(folder, "data") for member in members(path)]


def json_lines(folder: Path) -> list[Any]:
    return [line for path in paths(folder, "data") for line in path.read_text().splitlines()]


def tasks(folder: Path) -> list[Any]:
    found = [task for path in paths(folder, "tasks") for task in json.loads(path.read_text())]
    return [*found, (folder / "interface.xml").read_bytes()]


def labels(folder: Path) -> list[Any]:
    """And the images."""
    found: list[Any] = []
    for path in paths(folder, "labels"):
        content = json.loads(path.read_text())
        found += zip(content["labels"].items(), content["samples"].items(), strict=True)
    return [*found, *((path.name, path.read_bytes()) for path in paths(folder, "data"))]


def paths(folder: Path, name: str) -> Iterable[Path]:
    return sorted((folder / name).iterdir())


def all_files(folder: Path) -> list[Any]:
    return list(files_in(folder).items())


READ = {
    "hf": parquet,
    "boxes": parquet,
    "coco": coco,
    "grit": parquet,
    "webdataset": tars,
    "label-studio": tasks,
    "fiftyone": labels,
    "yolo": all_files,
    "odvg": json_lines,
}


@pytest.mark.parametrize("name", READ)
def test_sections_hold_what_one_holds(name: str, job: StoredDataset, tmp_path: Path) -> None:
    whole = exported(job, tmp_path / "whole", name)
    parts = exported(job, tmp_path / "parts", name, parallel=3)
    assert READ[name](tmp_path / "parts") == READ[name](tmp_path / "whole") != []
    assert parts == whole
    assert whole.boxes == (SHARDS - 1) * 6
    assert whole.rejected == whole.shards_exported == SHARDS - 1
    assert files_in(tmp_path / "parts")[README_KEY] == files_in(tmp_path / "whole")[README_KEY]


def test_every_format_that_can_have_sections_is_among_them() -> None:
    assert set(READ) == {name for name, chosen in EXPORT_FORMATS.items() if chosen.can_be_parallel}


@pytest.mark.parametrize("name", READ)
def test_the_same_sections_give_the_same_bytes(
    name: str, job: StoredDataset, tmp_path: Path
) -> None:
    for folder in ("once", "again"):
        exported(job, tmp_path / folder, name, parallel=3)
    assert files_in(tmp_path / "once") == files_in(tmp_path / "again")


def test_files_carry_their_section_and_are_accounted_for(
    job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "boxes", parallel=3, images_per_file=3, split=("train=1",))
    files = files_in(tmp_path)
    assert [name for name in files if name.startswith("data/")] == [
        f"data/train-{section:03d}-{number:05d}.parquet"
        for section, shards in enumerate((1, 1, 2))
        for number in range(-(-shards * IMAGES // 3))
    ]
    details = json.loads((tmp_path / EXPORT_KEY).read_text())["details"]
    assert (details["files"], details["size_bytes"]) == (len(files), sum(map(len, files.values())))


@pytest.mark.parametrize("parallel", [4, 9])
def test_there_are_no_more_sections_than_shards(
    parallel: int, job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "boxes", parallel=parallel, split=("train=1",))
    assert [path.name for path in paths(tmp_path, "data")] == [
        f"train-{section:03d}-00000.parquet" for section in range(SHARDS - 1)
    ]


def test_sections_of_nothing_are_an_empty_export(tmp_path: Path) -> None:
    job = write_dataset(tmp_path, {"a.tar": (pictures(1), None)})
    assert exported(job, tmp_path / "export", "yolo", parallel=2).annotations == 0
    assert json.loads((tmp_path / "export" / EXPORT_KEY).read_text())["is_complete"]


def test_ids_of_annotations_are_unique_over_all_sections(
    job: StoredDataset, tmp_path: Path
) -> None:
    coverage = exported(job, tmp_path, "coco", parallel=3, split=("train=1",))
    ids = [
        [annotation["id"] for annotation in json.loads(path.read_text())["annotations"]]
        for path in paths(tmp_path, "annotations")
    ]
    assert ids[0] == list(range(1, 7))
    assert set(Counter(i for each in ids for i in each).values()) == {1}
    assert sum(map(len, ids)) == coverage.boxes
    assert max(ids[-1]) < 2**53


def test_classes_of_a_file_are_the_same_in_every_section(
    job: StoredDataset, tmp_path: Path
) -> None:
    mapping = tmp_path / "classes.json"
    mapping.write_text(json.dumps({"dog": "hound"}))
    for folder, parallel in (("whole", 1), ("parts", 3)):
        coverage = exported(
            job, tmp_path / folder, "coco", parallel=parallel, categories=str(mapping)
        )
        assert coverage.boxes_without_class == (SHARDS - 1) * 4
    assert coco(tmp_path / "parts") == coco(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "voc"}, "voc needs all images in one place"),
        ({"format": "coco", "categories": "head-noun"}, "give a JSON file of phrase: class"),
    ],
)
def test_what_sections_cannot_do_is_refused_before_anything_is_written(
    options: dict[str, Any], said: str, job: StoredDataset, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=rf"{said}.*leave out --parallel"):
        exported(job, tmp_path / "out", options.pop("format"), parallel=2, **options)
    assert not (tmp_path / "out").exists()


# ---- a section that is done again, and others that write to the same place


def run(job: StoredDataset, folder: Path, before: Any) -> Coverage:
    """Three sections of boxes; `before(work, section)` comes before each."""

    def with_more(
        work: ExportContext, sections: Iterable[Section]
    ) -> Iterator[tuple[Section, Written]]:
        for section in sections:
            before(work, section)
            yield from in_turn(work, [section])

    chosen = ExportOptions(format="webdataset", parallel=3)
    return export_dataset(job, InputStore(), open_output(str(folder)), chosen, run=with_more)


def test_a_section_that_is_done_again_changes_nothing(job: StoredDataset, tmp_path: Path) -> None:
    """As by a task that died halfway, and one that had come to its end."""

    def halfway_and_whole(work: ExportContext, section: Section) -> None:
        next(half := export_section(work, section))
        half.close()
        list(export_section(work, section))

    once, again = tmp_path / "once", tmp_path / "again"
    assert run(job, once, lambda *_: None) == run(job, again, halfway_and_whole)
    assert files_in(once) == files_in(again)
    assert [
        json.loads((f / EXPORT_KEY).read_text())["details"]["files"] for f in (once, again)
    ] == [len(files_in(once))] * 2


def test_a_section_stops_where_another_export_took_over(job: StoredDataset, tmp_path: Path) -> None:
    def take_over(work: ExportContext, section: Section) -> None:
        if section.number == 1:
            exported(job, tmp_path, "boxes")

    with pytest.raises(LeaseHeld, match="another export writes there"):
        run(job, tmp_path, take_over)
    assert json.loads((tmp_path / EXPORT_KEY).read_text())["format"] == "boxes"
    assert all(
        name.endswith((".parquet", README_KEY, CROISSANT_KEY)) for name in files_in(tmp_path)
    )


def test_a_section_that_does_not_see_the_destination_says_so(
    job: StoredDataset, tmp_path: Path
) -> None:
    """A directory of another node's."""

    def hide(work: ExportContext, section: Section) -> None:
        (tmp_path / EXPORT_KEY).unlink(missing_ok=True)

    with pytest.raises(SpecError, match="a directory that not every node can read"):
        run(job, tmp_path, hide)
    assert files_in(tmp_path) == {}


def test_a_file_that_is_too_many_leaves_the_export_unfinished(
    job: StoredDataset, tmp_path: Path
) -> None:
    """As from a process that outlived an earlier export."""

    def leave_one(work: ExportContext, section: Section) -> None:
        open_output(str(tmp_path)).put("data/train-007-00000.tar", b"stray")

    with pytest.raises(Conflict, match="holds 4 files in data, but this export wrote 3"):
        run(job, tmp_path, leave_one)
    assert not json.loads((tmp_path / EXPORT_KEY).read_text())["is_complete"]
