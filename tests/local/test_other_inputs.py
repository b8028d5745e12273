"""Inputs beside tars, from S3 to a dataset and back to its pictures."""

import json
from pathlib import Path

import pytest

from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from tests.support.bucket import Bucket
from tests.support.dataset import primary_keys, read
from tests.support.forms import FORMS, Scene
from tests.support.locally import LocalCommand

IMAGES = 12
JOB = """
define:
  - name: find
    grounded: true
    prompt: "<phrase> {thing}</phrase>"
    max_new_tokens: 32
    ends_with_boxes: true
samples_per_shard: 5
"""


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("parquet", ("--carry", "words,number:int64", "--task", "find:thing=words")),
        ("files", ()),
    ],
)
def test_an_input_is_annotated_resumed_shown_and_verified(
    form: str, options: tuple[str, ...], bucket: Bucket, kosmos2: LocalCommand, tmp_path: Path
) -> None:
    scenes = [
        Scene(name=f"s{i:02d}", data=encode_jpeg(make_scene(9, i, objects=(1, 2)), 90))
        for i in range(IMAGES)
    ]
    (folder := tmp_path / "in").mkdir()
    FORMS[form](folder, scenes)
    for path in folder.rglob("*.*"):
        bucket.put(f"shards/{path.relative_to(folder)}", path.read_bytes())
    (config := tmp_path / "job.yaml").write_text(JOB)
    job = ("annotate", bucket.input, bucket.output, "--config", str(config), *options)

    first = kosmos2.run(*job, "--limit", "1")
    assert first.returncode == 0, first.stderr
    begun = bucket.objects("out/annotations/")
    done = kosmos2.run(*job)

    assert done.returncode == 0, done.stderr
    after = bucket.objects("out/annotations/")
    assert len(begun) == 1
    assert begun.items() < after.items()
    table = read(bucket)
    keys = primary_keys(table)
    assert (len(keys), set(keys.values())) == (IMAGES, {1})
    if form == "parquet":
        assert sorted(table["words"].to_pylist()) == [f"about {scene.name}" for scene in scenes]
        assert set(table["task"].to_pylist()) == {"find"}
        assert set(table["prompt"].to_pylist()) == {
            f"<grounding><phrase> about {scene.name}</phrase>" for scene in scenes
        }

    verified = kosmos2.run("verify", bucket.output, "--input", bucket.input, "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["inputs_new"] == 0
    sheet = tmp_path / "sheet.html"
    assert kosmos2.run("view", bucket.output, "--html", str(sheet)).returncode == 0
    assert sheet.read_text().count("data:image/jpeg;base64") == IMAGES
