"""From a shard's bytes to rows, with the real model: prompts made of the samples' own fields."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kosmos2_core.grounding.grid import iou
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.shards import write_shards
from kosmos2_core.shapes.world.wording import with_article
from pipeline.dataset.shards import shard_of
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import load_model
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore

IMAGES = 40
TASKS = ("brief", "ground:phrase=objects.0.phrase", "describe:box=objects.0.box")
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the scenes are empty: there is no first object to ask about."""
    folder = tmp_path_factory.mktemp("asked")
    write_shards(folder, shards=1, images=IMAGES, seed=31, objects=(0, 3), world=WIDE_WORLD)
    return folder


@pytest.fixture(scope="module")
def truths(folder: Path) -> list[dict[str, Any]]:
    with tarfile.open(next(folder.iterdir())) as archive:
        names = [name for name in archive.getnames() if name.endswith(".json")]
        return [json.loads(archive.extractfile(name).read())["objects"] for name in names]


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    spec = JobSpec(input=str(folder), output="unused", task=TASKS, device="cpu")
    actor = TableAnnotator(spec, load_model(spec).model)
    [source] = InputStore().list(str(folder)).objects
    reader = ShardReader(store=InputStore(), tasks=spec.task_names, exif="apply")
    tables = [actor(table) for table in reader.read(shard_of(source))]
    return {
        kind: [row for table in tables for row in table[kind].drop_null().to_pylist()]
        for kind in ("annotated", "rejected")
    }


def answers(rows: Rows, task: str) -> dict[int, dict[str, Any]]:
    return {row["index"]: row for row in rows["annotated"] if row["task"] == task}


def test_every_sample_and_task_is_annotated_or_rejected_once(rows: Rows) -> None:
    found = [(row["index"], row["task"]) for kind in rows.values() for row in kind]
    wanted = [(index, task) for index in range(IMAGES) for task in ("brief", "ground", "describe")]
    assert sorted(found) == sorted(wanted)


def test_samples_without_the_field_are_rejected_for_that_task(rows: Rows, truths: Any) -> None:
    empty = {index for index, objects in enumerate(truths) if not objects}
    assert empty
    assert {(row["index"], row["task"], row["error_type"]) for row in rows["rejected"]} == {
        (index, task, "missing_field") for index in empty for task in ("ground", "describe")
    }
    assert not any(row["retriable"] for row in rows["rejected"])


def test_the_phrase_of_a_field_is_grounded(rows: Rows, truths: Any) -> None:
    right = []
    for index, row in answers(rows, "ground").items():
        first = truths[index][0]
        assert row["prompt"] == f"<grounding><phrase> {first['phrase']}</phrase>"
        [entity] = row["entities"]
        assert (entity["phrase"], row["finish_reason"]) == (first["phrase"], "stop")
        box = [entity["boxes"][0][side] for side in ("x1", "y1", "x2", "y2")]
        right.append(iou(box, first["box"]) >= 0.5)
    assert sum(right) >= 0.95 * len(right)


def test_the_box_of_a_field_is_described(rows: Rows, truths: Any) -> None:
    right = []
    for index, row in answers(rows, "describe").items():
        first = truths[index][0]
        noun = with_article(f"{first['colour']} {first['shape']}")
        right.append(row["caption"] == f"It is {noun}.")
        [entity] = row["entities"]
        [box] = entity["boxes"]
        assert (box["source"], box["score"], entity["phrase_logprob"]) == ("prompt", None, None)
    assert sum(right) >= 0.95 * len(right)
