"""Real photographs and a model of the real vocabulary: nothing depends on the shapes world."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage
import sklearn

from tests.support.bucket import Bucket
from tests.support.checkpoints import random_checkpoint
from tests.support.dataset import file_metadata, primary_keys, read
from tests.support.locally import LocalCommand

TAGS = set(range(64_002, 64_013))
LOCATIONS = set(range(64_013, 65_037))
SUFFIXES = {".jpg", ".png", ".gif"}


def photographs() -> Iterator[Path]:
    for package in (skimage, sklearn):
        for path in sorted(Path(package.__file__).parent.rglob("*")):
            if path.suffix in SUFFIXES and "data" in str(path.parent):
                yield path


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("random"))


def test_photographs_go_through_the_whole_job(
    bucket: Bucket, kosmos2: LocalCommand, random_model: Path
) -> None:
    paths = list(photographs())[::3]
    assert {path.suffix for path in paths} == SUFFIXES
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number, path in enumerate(paths):
            tar.add(path, arcname=f"{number:04d}{path.suffix}")
    bucket.put("shards/photographs.tar", archive.getvalue())
    tasks = ("--task", "brief", "--task", "detailed")

    done = kosmos2.run(
        "annotate", bucket.input, bucket.output, "--model", str(random_model), *tasks
    )

    assert done.returncode == 0, done.stderr
    table = read(bucket)
    assert set(primary_keys(table).values()) == {1}
    assert table.num_rows == 2 * len(paths)
    rows = table.to_pylist()
    said = {token for row in rows for token in row["token_ids"]}
    assert said & TAGS, "the noise holds tags"
    assert said & LOCATIONS, "and locations, so the parser was at work on it"
    for row in rows:
        assert row["caption"].startswith(row["prompt"].removeprefix("<grounding> "))
        assert row["width"] > 0
        for entity in row["entities"]:
            assert row["caption"][entity["start"] : entity["end"]] == entity["phrase"]
            for box in entity["boxes"]:
                assert 0 <= box["x1"] < box["x2"] <= 1
                assert 0 <= box["y1"] < box["y2"] <= 1
                assert 0 <= box["score"] <= 1
    assert file_metadata(bucket, "photographs-")["kosmos2.checkpoint_id"] == str(random_model)
