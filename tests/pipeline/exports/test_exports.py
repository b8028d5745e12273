"""Exports as a whole: what all formats have in common, and where they go."""

import ast
import io
import json
import random
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from kosmos2_core.annotation import Entity
from kosmos2_core.grounding.nouns import head_noun
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import EXPORT_KEY, EXPORT_SHARDS_KEY
from pipeline.errors import CorruptOutput, InputMissing, LeaseHeld, SpecError
from pipeline.exports.categories import categories_from
from pipeline.exports.destination import Destination
from pipeline.exports.example import SCORE_FUNCTIONS, example_of, image_id, split_of
from pipeline.exports.exporting import README_KEY, export_dataset
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.options import ExportOptions, FormatName, Score
from pipeline.parquet import file_metadata, parquet_bytes, read_parquet
from pipeline.storage import InputStore, LocalStore, open_output
from tests.support.commits import write_dataset
from tests.support.export_contract import files_in, parquet, without_first_shard
from tests.support.export_dataset import (
    ANSWERS,
    BRIEF,
    DETAILED,
    SAID,
    a_box,
    answer,
    exported,
    write,
)
from tests.support.tars import a_sample, an_annotation, annotation_row, picture


def test_every_format_has_a_contract_test() -> None:
    tested = Counter[str]()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "ExportContract" in map(ast.unparse, node.bases):
                names = [each for each in node.body if ast.unparse(each).startswith("name = ")]
                tested.update(ast.literal_eval(each.value) for each in names)
    assert set(tested.values()) == {1}
    assert tested.keys() == set(EXPORT_FORMATS) == set(get_args(FormatName))


# ---- what all formats have in common


def test_captions_can_keep_their_prompt(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "hf", strip_prompt=False, task=())
    rows = parquet(tmp_path)
    assert {row["task"] for row in rows} == {"brief", "detailed"}
    assert all(row["caption"].startswith((BRIEF, DETAILED)) for row in rows)
    for row in rows:
        for entity in row["entities"]:
            assert row["caption"][entity["start"] : entity["end"]] == entity["phrase"]
    assert sum(len(entity["boxes"]) for row in rows for entity in row["entities"]) == 15


def test_examples_of_several_tasks_have_names_of_their_own(
    job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "webdataset", task=())
    with tarfile.open(tmp_path / "data" / "train-00000.tar") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names)) == 20
    assert [name.rpartition("-")[2] for name in names[:4]] == [
        *("brief.jpg", "brief.json"),
        *("detailed.jpg", "detailed.json"),
    ]


def test_files_end_at_the_size_asked_for(tmp_path: Path) -> None:
    """Noise, since other images are too small to fill a file."""
    noise = np.random.default_rng(0)
    members = []
    for i in range(12):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (300, 300, 3), np.uint8)).save(buffer, "PNG")
        members.append((f"{i:02d}.png", buffer.getvalue()))  # 270 kB each
    job = write_dataset(tmp_path, {"n.tar": (members, [[ANSWERS["bare"]]] * 12)})
    for name, extension in (("hf", "parquet"), ("webdataset", "tar")):
        exported(job, tmp_path / name, name, images="embed", file_size_mb=1)
        files = sorted((tmp_path / name / "data").iterdir())
        assert [path.name for path in files] == [f"train-{i:05d}.{extension}" for i in range(3)]
        assert all(path.stat().st_size < 1_300_000 for path in files)


@pytest.mark.parametrize(
    "name",
    [name for name, chosen in EXPORT_FORMATS.items() if name not in ("yolo", "voc", "sidecar")],
)
def test_files_of_text_end_at_the_size_asked_for(name: FormatName, tmp_path: Path) -> None:
    """Of the formats that put many images into a file; long texts, since others fill none."""
    draw = random.Random(3)
    members, said = [], []
    for i in range(8):
        noise = draw.randbytes(150_000).hex()  # 300 kB of text
        members += [(f"{i}.jpg", picture(i)), (f"{i}.json", json.dumps({"url": noise}).encode())]
        said.append([answer(BRIEF, f"a cat {noise}", {"a cat": [a_box(0.25, 0.25, 0.5, 0.5)]})])
    job = write_dataset(tmp_path, {"n.tar": (members, said)})
    exported(job, tmp_path / name, name, file_size_mb=1)
    files = [path for path in (tmp_path / name).rglob("train-*") if path.stat().st_size > 10_000]
    assert len(files) > 1
    # One more than fits: of each there are the caption and the URL.
    assert all(path.stat().st_size < 1_000_000 + 2 * 320_000 for path in files)


@pytest.mark.parametrize(("score", "expected"), [("mass", 0.5), ("logp", np.exp(-1))])
def test_the_score_is_the_one_asked_for(
    score: Score, expected: float, job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "boxes", score=score)
    [sign] = [row for row in parquet(tmp_path) if row["phrase"] == "𠜎 the sign"]
    assert sign["score"] == pytest.approx(expected, abs=1e-6)
    assert sign["logp"] == -1


@pytest.mark.parametrize(
    ("score", "expected"),
    [("mass", 0.5), ("joint", 0.5 * np.exp(-2)), ("logp", np.exp(-1)), ("consistency", 0.25)],
)
def test_a_joint_score_is_that_of_box_and_phrase(score: Score, expected: float) -> None:
    box = a_box(0.0, 0.0, 1.0, 1.0, score=0.5, consistency=0.25)
    entity = Entity(phrase="a", start=0, end=1, boxes=(box,), phrase_logprob=-2.0)
    assert SCORE_FUNCTIONS[score](entity, box) == pytest.approx(expected)


def test_a_phrase_that_was_given_is_beyond_doubt() -> None:
    box = a_box(0.0, 0.0, 1.0, 1.0, score=0.5)
    entity = Entity(phrase="a", start=0, end=1, boxes=(box,))
    assert SCORE_FUNCTIONS["joint"](entity, box) == 0.5
    assert SCORE_FUNCTIONS["joint"](entity, a_box(0.0, 0.0, 1.0, 1.0, score=None)) is None


def test_every_score_that_can_be_asked_for_is_one() -> None:
    assert set(SCORE_FUNCTIONS) == set(get_args(Score))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "coco", "task": ()}, "choose one with --task: brief, detailed"),
        ({"format": "hf", "task": ("sing",)}, "no task 'sing'"),
        ({"format": "grit", "images": "embed"}, "cannot hold images"),
        ({"format": "hf", "categories": "head-noun"}, "phrases but no classes"),
        ({"format": "yolo", "categories": "/nowhere.json"}, "/nowhere.json cannot be read"),
        ({"format": "hf", "score": "consistency"}, "annotate with --verify-boxes"),
    ],
)
def test_what_a_format_cannot_do_is_refused_before_anything_is_written(
    options: dict[str, Any], said: str, job: StoredDataset, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=said):
        exported(job, tmp_path / "out", options.pop("format"), **options)
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_gone_ends_the_export_unfinished(tmp_path: Path) -> None:
    job = write(tmp_path)
    (tmp_path / "in" / "b.tar.gz").unlink()
    with pytest.raises(InputMissing, match=r"b\.tar\.gz"):
        exported(job, tmp_path / "export", "webdataset")
    assert not json.loads((tmp_path / "export" / EXPORT_KEY).read_text())["is_complete"]
    assert exported(job, tmp_path / "export", "webdataset", images="reference").annotations == 5


def test_an_export_can_come_from_and_go_to_s3(s3_bucket: str, tmp_path: Path) -> None:
    job = write(tmp_path, output=f"s3://{s3_bucket}/out")
    store = open_output(f"s3://{s3_bucket}/export")
    for name in ("boxes", "webdataset"):
        options = ExportOptions(format=name, task=("brief",), overwrite=True)
        export_dataset(job, InputStore(), store, options)
    assert store.list("data") == ["data/train-00000.tar"]
    with tarfile.open(fileobj=io.BytesIO(store.get("data/train-00000.tar").data)) as archive:
        assert len(archive.getnames()) == 2 * len(SAID)
    assert json.loads(store.get(EXPORT_KEY).data)["is_complete"]


# ---- where it goes


def test_a_finished_export_is_replaced_only_on_request(job: StoredDataset, tmp_path: Path) -> None:
    exported(job, tmp_path, "yolo", split=("train=1", "val=1"))
    with pytest.raises(SpecError, match="--overwrite"):
        exported(job, tmp_path, "coco")
    mine = tmp_path / "notes.txt"
    mine.write_text("not yours")
    exported(job, tmp_path, "coco", overwrite=True)
    assert {str(path) for path in files_in(tmp_path)} - {".lock"} == {
        *("README.md", "croissant.json", "notes.txt"),
        *("annotations/train-00000.json", "results/train-00000.json"),
    }


def test_sections_are_added_beside_those_that_are_there(job: StoredDataset, tmp_path: Path) -> None:
    growing, late = without_first_shard(job, tmp_path / "out")
    folder = tmp_path / "export"
    exported(growing, folder, "coco")
    growing.store.create(*late)
    exported(growing, folder, "coco")
    names = sorted(path.name for path in (folder / "annotations").iterdir())
    assert names == ["train-00000.json", "train-001-00000.json"]
    found = [json.loads((folder / "annotations" / name).read_text()) for name in names]
    ids = [annotation["id"] for each in found for annotation in each["annotations"]]
    assert len(ids) == len(set(ids)) == 9
    assert found[0]["categories"] == found[1]["categories"]
    record = json.loads((folder / EXPORT_KEY).read_text())
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._"]
    assert record["details"]["files"] == len(files)
    assert record["details"]["size_bytes"] == sum(path.stat().st_size for path in files)
    assert record["details"]["coverage"]["annotations"] == 5


def test_a_shard_that_was_annotated_again_is_not_left_as_it_was(
    job: StoredDataset, tmp_path: Path
) -> None:
    growing, (key, data) = without_first_shard(job, tmp_path / "out")
    growing.store.create(key, data)
    exported(growing, tmp_path / "export", "hf")
    metadata = {**file_metadata(data), "commit_id": "f" * 32}
    table = read_parquet(key, data).table
    growing.store.put(key, parquet_bytes(table, metadata))
    for summary in growing.store.list("ledger/"):
        growing.store.delete(summary)
    with pytest.raises(
        SpecError, match=r"earlier state of 1 shards .*annotated again.*--overwrite"
    ):
        exported(growing, tmp_path / "export", "hf")
    assert exported(growing, tmp_path / "export", "hf", overwrite=True).shards_kept == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "boxes"}, "another format"),
        ({"score": "logp"}, "another score"),
        ({"task": ("detailed",)}, "another task"),
        ({"split": ("train=1", "val=1")}, "another split"),
    ],
)
def test_shards_are_added_with_the_same_options_only(
    changes: dict[str, Any], said: str, job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "hf")
    with pytest.raises(SpecError, match=f"{said}.*--overwrite"):
        exported(job, tmp_path, **{"name": "hf", **changes})
    assert exported(job, tmp_path, "hf", file_size_mb=1, license="MIT").shards_kept == 2


def test_other_classes_of_the_same_file_are_noticed(job: StoredDataset, tmp_path: Path) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text('{"a cat 🐈": "cat"}')
    exported(job, tmp_path / "export", "coco", categories=str(classes))
    classes.write_text('{"a cat 🐈": "animal"}')
    with pytest.raises(SpecError, match="another content of --categories"):
        exported(job, tmp_path / "export", "coco", categories=str(classes))


def test_an_export_of_an_earlier_version_is_not_added_to(
    job: StoredDataset, tmp_path: Path
) -> None:
    exported(job, tmp_path, "hf")
    (tmp_path / EXPORT_SHARDS_KEY).unlink()
    with pytest.raises(SpecError, match=r"no list of its shards.*--overwrite"):
        exported(job, tmp_path, "hf")


def test_something_else_is_never_replaced(job: StoredDataset, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(SpecError, match=r"not empty \(data/precious\)"):
        exported(job, tmp_path, "hf", overwrite=True)
    assert sorted(files_in(tmp_path)) == ["data/precious"]


def test_a_record_of_another_kind_is_left_alone(job: StoredDataset, tmp_path: Path) -> None:
    (tmp_path / EXPORT_KEY).write_text("{}")
    with pytest.raises(SpecError, match="choose another DEST"):
        exported(job, tmp_path, "hf", overwrite=True)
    assert sorted(files_in(tmp_path)) == []


def test_an_unfinished_export_is_begun_anew(
    job: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the last file: what there is does not say that it is whole, and goes."""

    def full(self: LocalStore, key: str, data: bytes) -> None:
        if key == README_KEY:
            raise OSError("no space left")
        original(self, key, data)

    original = LocalStore.put
    monkeypatch.setattr(LocalStore, "put", full)
    with pytest.raises(OSError, match="no space"):
        exported(job, tmp_path, "webdataset")
    monkeypatch.undo()
    assert (tmp_path / "data" / "train-00000.tar").exists()
    assert not json.loads((tmp_path / EXPORT_KEY).read_text())["is_complete"]
    exported(job, tmp_path, "boxes")
    assert json.loads((tmp_path / EXPORT_KEY).read_text())["is_complete"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000.parquet"]


def test_of_two_exports_at_once_one_is_told(tmp_path: Path) -> None:
    store = open_output(str(tmp_path))
    with Destination(store) as first, Destination(store) as second:
        for place in (first, second):
            place.begin("hf", folders=("data",), files=(), overwrite=False)
        second.write("data/x", b"1")
        with pytest.raises(LeaseHeld, match="another export"):
            first.finish({})
        second.finish({})
    assert json.loads((tmp_path / EXPORT_KEY).read_text())["is_complete"]


# ---- what goes into all of them


def test_a_span_that_leads_elsewhere_is_found(job: StoredDataset) -> None:
    broken = Entity(phrase="a cat", start=1, end=6, boxes=())
    row = annotation_row("shard", a_sample(), an_annotation(entities=(broken,)))
    with pytest.raises(CorruptOutput, match="'a cat' does not match the caption"):
        example_of(
            row,
            ordinal=0,
            options=ExportOptions(format="hf", strip_prompt=False),
            has_task_in_name=False,
            file_name="0000.jpg",
        )


def test_image_ids_start_at_1_and_are_exact_in_json() -> None:
    assert image_id(0, 0) == 1
    assert image_id(0, 2**31 - 1) < image_id(1, 0)
    assert image_id(2**22 - 1, 2**31 - 1) <= 2**53
    with pytest.raises(SpecError, match="larger shards"):
        image_id(2**22, 0)


def test_splits_have_their_shares_and_are_stable() -> None:
    shares = ExportOptions(format="hf", split=("train=90", "val=5", "test=5")).shares
    hashes = [np.random.default_rng(i).bytes(32) for i in range(4000)]
    counts = Counter(split_of(h, shares) for h in hashes)
    assert counts["train"] / 4000 == pytest.approx(0.9, abs=0.02)
    assert counts["val"] / 4000 == pytest.approx(0.05, abs=0.015)
    assert split_of(b"\xff" * 32, shares) == "test"
    assert split_of(b"\x00" * 32, shares) == "train"


@pytest.mark.parametrize("split", [(), ("train",), ("train=0",), ("a=1", "a=2"), ("../x=1",)])
def test_splits_that_mean_nothing_are_refused(split: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="split"):
        ExportOptions(format="hf", split=split)


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("a snowman", "snowman"),
        ("A cup of coffee", "cup"),
        ("the man in a red hat", "man"),
        ("two brown dogs", "dogs"),
        ("a woman's hand", "hand"),
        ("a cat 🐈", "cat"),
        ("a t-shirt, worn", "t-shirt"),
        ("🐈", "object"),
    ],
)
def test_head_noun(phrase: str, noun: str) -> None:
    assert head_noun(phrase) == noun


def test_a_category_file_maps_phrases_and_may_name_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"snowman": "person", "The  Hat": "thing", "*": "other"}))
    categories = categories_from(str(path))
    assert categories.names == ["person", "thing", "other"]
    found = [categories.id_of(phrase) for phrase in ("A snowman", "a hat", "hats")]
    assert found == [1, 2, 3]
    path.write_text(json.dumps({"snowman": "person"}))
    assert categories_from(str(path)).id_of("hats") is None


@pytest.mark.parametrize(("content", "said"), [("{", "not JSON"), ("[1]", "not an object of")])
def test_a_category_file_that_is_none_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(SpecError, match=said):
        categories_from(str(path))
