"""What every kind of input has to keep: one contract, over all of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kosmos2_core.annotation import Annotation, Entity
from kosmos2_core.annotator import Annotator
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.tasks import BRIEF
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import extend_plan, freeze_plan, load_plan
from pipeline.errors import InputMissing
from pipeline.estimate.survey import survey
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.plan.drift import PlanDrift, beyond, drift_of
from pipeline.reading.row_images import fetches
from pipeline.reading.shard_reader import ShardReader
from pipeline.schema import READ, entity_of
from pipeline.storage import open_output
from pipeline.verification.findings import Defect
from pipeline.verification.outputs import verify_dataset
from tests.support.forms import FORMS, KINDS, LISTED_FORMS, Planned, Scene, planned
from tests.support.tars import job_record, picture

TASKS = ("brief", "detailed")
SCENES = [Scene(name=f"s{i:02d}", data=picture(i)) for i in range(10)]

pytestmark = pytest.mark.parametrize("form", FORMS)


def written(tmp_path: Path, form: str, scenes: Sequence[Scene] = SCENES) -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    FORMS[form](folder, scenes)
    return folder


def reader_of(found: Planned) -> ShardReader:
    return ShardReader(
        store=found.reader.store,
        tasks=TASKS,
        exif="apply",
        image_column=found.spec.image_column,
        listings=found.reader.listings,
    )


def read(found: Planned) -> list[list[pa.Table]]:
    return [list(reader_of(found).read(shard)) for shard in found.shards]


def rows(shards: list[list[pa.Table]], kind: str) -> list[dict[str, Any]]:
    tables = [table for of_shard in shards for table in of_shard]
    return [row for table in tables for row in table[kind].drop_null().to_pylist()]


def test_its_kind_is_told_from_what_is_there(tmp_path: Path, form: str) -> None:
    found = planned(written(tmp_path, form))
    assert {shard.kind for shard in found.shards} == {KINDS[form]}
    assert len({shard.shard_id for shard in found.shards}) == len(found.shards)
    counts = [shard.count for shard in found.shards]
    expected = {"webdataset": [None], "arrow": [None], "parquet": [6, 4]}
    assert counts == expected.get(KINDS[form], [4, 4, 2])


def test_all_images_are_there_once_in_order(tmp_path: Path, form: str) -> None:
    tables = read(found := planned(written(tmp_path, form)))
    samples = rows(tables, "sample")
    hashes = [hashlib.sha256(scene.data).digest() for scene in SCENES]
    assert [row["image_sha256"] for row in samples] == hashes
    for shard, of_shard in zip(found.shards, tables, strict=True):
        indices = [row["index"] for row in rows([of_shard], "sample")]
        assert indices == list(range(len(indices)))
        assert rows([of_shard], "end") == [
            {"samples": len(indices), "truncated": False, "retriable": False}
            | dict.fromkeys(("error_type", "message"))
            | dict.fromkeys(("read_s", "cpu_s"), 0.0)  # a task's, which knows its time
        ]
        assert shard.count in (None, len(indices))
    assert all(table.schema.equals(READ) for of_shard in tables for table in of_shard)


def test_keys_and_fields_are_those_of_the_sample(tmp_path: Path, form: str) -> None:
    samples = rows(read(planned(written(tmp_path, form))), "sample")
    folder = "deep/" if form == "files" else ""
    assert [row["key"] for row in samples] == [f"{folder}{scene.name}" for scene in SCENES]
    for row in samples:
        if form == "files":
            assert row["metadata"] is None
        else:
            assert f'"words": "about {row["key"]}"' in row["metadata"]
            assert '"number": ' in row["metadata"]
        assert row["issues"] == ["tiny_image"]


def test_reading_twice_gives_the_same_tables(tmp_path: Path, form: str) -> None:
    found = planned(written(tmp_path, form))
    first, second = read(found), read(found)
    for a, b in zip(first, second, strict=True):
        assert all(x.equals(y) for x, y in zip(a, b, strict=True))


def test_rows_lead_back_to_their_images(tmp_path: Path, form: str) -> None:
    found = planned(written(tmp_path, form))
    expected = iter(SCENES)
    for shard, tables in zip(found.shards, read(found), strict=True):
        samples = rows([tables], "sample")
        scenes = [next(expected) for _ in samples]
        some = [*range(0, len(samples), 2)]
        calls = fetches([samples[i] for i in some], replace(shard, listing=None), found.reader)
        assert [call() for call in calls] == [scenes[i].data for i in some]


def test_of_a_part_just_its_samples_are_read_but_all_are_counted(tmp_path: Path, form: str) -> None:
    found = planned(written(tmp_path, form))
    shard = replace(found.shards[0], only=(1, 3))
    if form in LISTED_FORMS:  # no other image is asked for
        for path in tmp_path.rglob("s*.jpg"):
            if path.stem not in ("s01", "s03"):
                path.unlink()
    tables = list(reader_of(found).read(shard))
    assert [row["index"] for row in rows([tables], "sample")] == [1, 3]
    [end] = rows([tables], "end")
    assert end["samples"] == (shard.count or len(SCENES))


def test_a_bad_image_costs_itself_alone(tmp_path: Path, form: str) -> None:
    bad = replace(SCENES[4], data=b"no picture")
    tables = read(planned(written(tmp_path, form, [*SCENES[:4], bad, *SCENES[5:]])))
    rejected = rows(tables, "rejected")
    assert [(row["task"], row["stage"], row["error_type"]) for row in rejected] == [
        (task, "decode", "unknown_format") for task in TASKS
    ]
    assert {row["key"].rpartition("/")[2] for row in rejected} == {bad.name}
    assert len(rows(tables, "sample")) == len(SCENES) - 1


def test_what_is_overwritten_is_not_read(tmp_path: Path, form: str) -> None:
    """As a whole where it is one file; of images on their own, those that it hit."""
    found = planned(folder := written(tmp_path, form))
    written(
        tmp_path, form, [replace(scene, data=picture(50 + i)) for i, scene in enumerate(SCENES)]
    )
    tables = read(found)
    if form == "files":
        assert folder.exists()
        assert {row["error_type"] for row in rows(tables, "rejected")} == {"input_changed"}
        assert rows(tables, "sample") == []
    elif form not in LISTED_FORMS:  # a manifest's images are whatever is there
        assert {row["error_type"] for row in rows(tables, "end")} == {"input_changed"}
        assert rows(tables, "sample") == []


def test_what_vanished_is_said_by_name(tmp_path: Path, form: str) -> None:
    found = planned(folder := written(tmp_path, form))
    pictures = folder.parent / "in-pictures" if form != "files" else folder
    gone = sorted((pictures if pictures.exists() else folder).rglob("*.*g*"))
    for path in gone or sorted(folder.rglob("*.*")):
        path.unlink()
    tables = read(found)
    said = rows(tables, "rejected" if form in LISTED_FORMS else "end")
    assert {row["error_type"] for row in said} == {"input_missing"}
    assert not any(row["retriable"] for row in said)


def test_a_plan_is_frozen_compared_and_extended(tmp_path: Path, form: str) -> None:
    spec = planned(folder := written(tmp_path, form)).spec
    store = open_output(str(tmp_path / "out"))
    listings = StoredListings(store)
    plan = freeze_plan(store, cut(discover(spec), spec, listings).shards)
    assert load_plan(store) == plan
    again = discover(spec, plan=plan)
    assert drift_of(plan, again, listings) == PlanDrift(new=(), changed=(), vanished=())
    assert cut(beyond(plan, again, listings), spec, listings).shards == []
    more = [Scene(name=f"t{i}", data=picture(90 + i)) for i in range(3)]
    _add(folder, form, more)
    today = discover(spec, plan=plan)
    assert len(drift_of(plan, today, listings).new) == (3 if form in LISTED_FORMS else 1)
    new = cut(beyond(plan, today, listings), spec, listings).shards
    extended = extend_plan(store, plan, new)
    assert extended.shards == (*plan.shards, *new)
    reader = ShardReader(
        store=planned(folder).reader.store, tasks=TASKS, exif="apply", listings=listings
    )
    samples = rows([list(reader.read(shard)) for shard in extended.shards], "sample")
    assert {row["image_sha256"] for row in samples} == {
        hashlib.sha256(scene.data).digest() for scene in [*SCENES, *more]
    }
    assert len(samples) == len(SCENES) + len(more)


def _add(folder: Path, form: str, scenes: Sequence[Scene]) -> None:
    """More of the same: another file of a table, more images in a folder."""
    if form == "files":
        FORMS[form](folder, scenes)
        return
    beside = folder.parent / "more"
    beside.mkdir()
    FORMS[form](beside, scenes)
    for path in beside.rglob("*.*"):
        if path.suffix in (".tar", ".gz", ".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".json"):
            path.rename(folder / f"more-{path.name}")


def test_its_images_are_counted_before_anything_runs(tmp_path: Path, form: str) -> None:
    found = survey(planned(written(tmp_path, form)).spec)
    assert (found.images.low, found.images.value, found.images.high) == (10, 10, 10)
    has_names = form not in ("parquet", "base64", "list<uint8>")
    assert found.images_by_format == ({"jpeg": 10} if has_names else {"no name": 10})


def test_each_file_is_read_or_counted_by_reason(tmp_path: Path, form: str) -> None:
    folder = written(tmp_path, form)
    for name in (".DS_Store", "_SUCCESS", "notes.rst", "sub/stray.bin", "sub/.git/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"words")
    (folder / "gone").symlink_to("nowhere")
    spec = planned(folder).spec
    found = discover(spec)
    read = len(found.objects) + sum(
        each.rows.num_rows if found.kind == "files" else 1 for each in found.lists
    )
    ignored = sum(each.count for each in found.ignored)
    assert read + ignored == len([path for path in folder.rglob("*") if not path.is_dir()])
    counts = {each.reason: each.count for each in found.ignored}
    assert (counts["hidden"], counts["broken links"]) == (3, 1)
    assert survey(spec).ignored == found.ignored


def test_nothing_of_the_kind_is_said(tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.pdf", "b.md"):
        (tmp_path / "in" / name).write_text("words")
    with pytest.raises(InputMissing, match="nothing to read"):
        planned(tmp_path / "in", input_format=KINDS[form])


def test_a_lost_list_is_found(tmp_path: Path, form: str) -> None:
    spec = planned(written(tmp_path, form)).spec
    store = open_output(str(tmp_path / "out"))
    freeze_plan(store, cut(discover(spec), spec, StoredListings(store)).shards)
    record = job_record(spec)
    assert verify_dataset(store, record).findings == ()
    for key in store.list("listings/"):
        store.delete(key)
    found = [finding.defect for finding in verify_dataset(store, record).findings]
    assert found == ([Defect.PLAN_DAMAGED] if form in LISTED_FORMS else [])


def test_a_far_row_is_led_back_to_as_well(tmp_path: Path, form: str) -> None:
    scenes = [Scene(name=f"s{i:02d}", data=picture(i)) for i in range(40)]
    found = planned(written(tmp_path, form, scenes), samples_per_shard=40)
    [shard] = found.shards
    samples = rows(read(found), "sample")
    some = [0, 25, 26, 39]
    calls = fetches([samples[i] for i in some], shard, found.reader)
    assert [call() for call in calls] == [scenes[i].data for i in some]


@pytest.fixture(scope="module")
def shapes() -> Annotator:
    return Annotator.from_pretrained("shapes", generation=Generation(slots=4), tasks=[BRIEF])


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return [
        Scene(name=f"s{i}", data=encode_jpeg(make_scene(7, i, objects=(1, 2)), 90))
        for i in range(3)
    ]


@pytest.fixture(scope="module")
def truth(shapes: Annotator, drawn: list[Scene]) -> list[Annotation]:
    return list(shapes.annotate([scene.data for scene in drawn]))


def test_scenes_are_annotated_alike_whatever_they_come_in(
    tmp_path: Path, form: str, shapes: Annotator, drawn: list[Scene], truth: list[Annotation]
) -> None:
    found = planned(written(tmp_path, form, drawn))
    actor = TableAnnotator(found.spec, SharedAnnotator(shapes))
    tables = [actor(table) for of_shard in read(found) for table in of_shard]
    said = [row for table in tables for row in table["annotated"].drop_null().to_pylist()]
    assert [(row["caption"], row["token_ids"]) for row in said] == [
        (annotation.caption, list(annotation.token_ids)) for annotation in truth
    ]
    assert [[cells(entity_of(each)) for each in row["entities"]] for row in said] == [
        list(map(cells, annotation.entities)) for annotation in truth
    ]


def cells(entity: Entity) -> tuple[str, list[tuple[int, int]]]:
    """Scores are stored in less precision than they have."""
    return entity.phrase, [(box.ul, box.lr) for box in entity.boxes]
