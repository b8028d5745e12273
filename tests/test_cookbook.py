"""Every command of docs/cookbook.md is run, in its order, where what it speaks of is there."""

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import run_command
from kosmos2_core.benchmarks.published import FLICKR30K, REFCOCO
from kosmos2_core.prompts.tasks import TASKS
from kosmos2_core.shapes.world.scenes import Scene, make_scene
from kosmos2_core.shapes.world.shards import encode_jpeg
from pipeline.exit_codes import ExitCode
from pipeline.exports.formats.registry import EXPORT_FORMATS
from tests.jobs.commands.test_evaluate import add_expressions, add_phrases
from tests.support.forms import save_to_disk
from tests.support.label_studio import answered, tasks_in
from tests.support.locally import TablesOfGpus, without_ray
from tests.support.tars import tar

PAGE = (Path(__file__).parent.parent / "docs" / "cookbook.md").read_text()
SHARDS, SCENES = 2, 2  # of each
PAGES = ("--html", "--preview")


def shown() -> list[list[str]]:
    """All lines of shell that are no comments, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = shown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    folder: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """How each ended. They build on one another."""
    folder = tmp_path_factory.mktemp("cookbook")
    write_world(folder)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch, TablesOfGpus)  # for what GPUs cost
        try:
            os.chdir(folder)
            return {shlex.join(words): run(words, folder) for words in COMMANDS}
        finally:
            os.chdir(before)


def run(words: list[str], folder: Path) -> Ran:
    """Run a command. People judge what it has sampled."""
    code = run_command(words[1:])
    if words[1] == "sample":
        judged = answered(tasks_in(folder / words[3]), lambda *_: "keep")
        (folder / "answers.json").write_text(json.dumps(judged))
    return Ran(code=code, folder=folder)


def write_world(folder: Path) -> None:
    """The same scenes in every form of input, and as the files of the benchmarks."""
    for name in ("shards", "table", "dataset", "photos", "images", "made"):
        (folder / name).mkdir()
    scenes = [
        make_scene(77, number, objects=(1, 2), width=240, height=240)
        for number in range(SHARDS * SCENES)
    ]
    rows = [{"picture": encode_jpeg(scene, 92), **fields_of(scene)} for scene in scenes]
    write_inputs(folder, rows)
    phrases: dict[str, list[object]] = {"images": [], "annotations": []}
    expressions: dict[str, list[object]] = {"images": [], "annotations": []}
    for number, scene in enumerate(scenes):
        (folder / "images" / f"{number}.jpg").write_bytes(rows[number]["picture"])
        add_phrases(phrases, number, scene)
        add_expressions(expressions, number, scene)
    (folder / "final_flickr_separateGT_test.json").write_text(json.dumps(phrases))
    (folder / "finetune_refcoco_testA.json").write_text(json.dumps(expressions))


def fields_of(scene: Scene) -> dict[str, Any]:
    objects = [{"phrase": phrase, "box": list(boxes[0])} for phrase, boxes in scene.entities]
    return {"objects": objects, "question": "How many objects are there?"}


def write_inputs(folder: Path, rows: list[dict[str, Any]]) -> None:
    members, listed = [], []
    for number, row in enumerate(rows):
        name, fields = f"{number}.jpg", {k: v for k, v in row.items() if k != "picture"}
        members += [(name, row["picture"]), (f"{number}.json", json.dumps(fields).encode())]
        listed.append(json.dumps({"file_name": name, **fields}) + "\n")
        (folder / "photos" / name).write_bytes(row["picture"])
    (folder / "photos" / "metadata.jsonl").write_text("".join(listed))
    for shard in range(SHARDS):
        of_shard = members[shard * SCENES * 2 : (shard + 1) * SCENES * 2]
        (folder / "shards" / f"shapes-{shard:05d}.tar").write_bytes(tar(of_shard))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "table" / "train.parquet", row_group_size=SCENES)
    save_to_disk(folder / "dataset", table)


@pytest.mark.parametrize("words", COMMANDS, ids=shlex.join)
def test_a_command_of_the_cookbook_does_what_it_says(words: list[str], ran: dict[str, Ran]) -> None:
    found = ran[shlex.join(words)]
    assert found.code == ExitCode.DONE
    _, command, *rest = words
    if command in ("annotate", "filter", "dedup"):
        dataset = found.folder / rest[1]
        assert json.loads((dataset / "job.json").read_text())["spec"]["input"]
        rows = [
            row for file in dataset.glob("annotations/*") for row in pq.read_table(file).to_pylist()
        ]
        assert rows
    if command == "annotate":
        tasks = rest.count("--task") or 1
        assert len(rows) == SHARDS * SCENES * tasks
        carried = rest[rest.index("--carry") + 1].split(",") if "--carry" in rest else []
        assert all(row[name] is not None for row in rows for name in carried)
    if command == "export":
        record = json.loads((found.folder / rest[1] / "_EXPORT.json").read_text())
        assert record["is_complete"]
        assert record["details"]["coverage"]["boxes"] > 0
    for path in (found.folder / rest[i + 1] for i, word in enumerate(rest) if word in PAGES):
        assert path.read_text().startswith("<!doctype html>")


def test_the_cookbook_has_the_published_figures() -> None:
    rows = re.findall(r"^\|.*\| ([^|]+) \| ([\d./ ]+) \|$", PAGE, flags=re.M)
    flickr, refcoco = rows[:2], rows[2:]
    assert [(split, tuple(map(float, said.split(" / ")))) for split, said in flickr] == [
        *FLICKR30K.items()
    ]
    said = [
        pair for splits, said in refcoco for pair in zip(*map(_parts, (splits, said)), strict=True)
    ]
    assert said == [(split, f"{value:.2f}") for (_, split), value in REFCOCO.items()]


def _parts(cell: str) -> list[str]:
    return cell.split(" / ")


def test_the_cookbook_has_every_task_and_every_format() -> None:
    assert {words[0] for words in COMMANDS} == {"kosmos2"}
    uses = [words[i + 1] for words in COMMANDS for i, word in enumerate(words) if word == "--task"]
    own = [
        json.loads(words[words.index("--define") + 1]) for words in COMMANDS if "--define" in words
    ]
    known = {*TASKS, *(task["name"] for task in own)}
    assert {use.partition(":")[0] for use in uses} == known
    formats = [words[words.index("--format") + 1] for words in COMMANDS if "--format" in words]
    assert set(formats) == EXPORT_FORMATS.keys()
