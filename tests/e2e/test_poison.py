"""Pictures that kill whatever process decodes them."""

import tarfile
from pathlib import Path

import pyarrow as pa

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2
from tests.support.dataset import file_metadata, named_rejects, primary_keys, read

POISON = (5, 66)  # in different tables of their shard
IMAGES = 70
MAX_DEATHS = 3 + len(POISON)


def poisoned(kosmos2: Kosmos2, point: str, archive: Path, deaths: Path) -> Kosmos2:
    """`point` kills whoever comes by with one of those pictures of `archive`, each time."""
    with tarfile.open(archive) as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")]
    # A file for each death, and for more than there may be.
    return kosmos2.with_faults(
        ";".join(
            f"{point}[key={names[index].removesuffix('.jpg')}]=kill@{deaths}/death-{index}-{n}"
            for index in POISON
            for n in range(2 * MAX_DEATHS)
        )
    )


def rejected_alone(
    bucket: Bucket, kosmos2: Kosmos2, folder: Path, *, point: str, stage: str
) -> pa.Table:
    """What is rejected where pictures kill at `point`: they and no others, all else is there."""
    write_shards(folder / "in", shards=2, images=IMAGES, seed=5)
    bucket.put_shards(folder / "in")
    killing = poisoned(kosmos2, point, folder / "in" / "shapes-00001.tar", folder)

    done = killing.run("annotate", bucket.input, bucket.output)

    assert done.returncode == 0, done.stderr
    rejected = named_rejects(bucket)
    assert set(primary_keys(read(bucket), rejected).values()) == {1}
    assert len(primary_keys(read(bucket))) == 2 * IMAGES - len(POISON)
    assert [(r["index"], r["stage"], r["error_type"]) for r in rejected.to_pylist()] == [
        (index, stage, "worker_died") for index in POISON
    ]
    return rejected


def test_pictures_that_kill_their_reader_cost_themselves_alone(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    rejected = rejected_alone(bucket, kosmos2, tmp_path, point="decoder.decode", stage="decode")
    assert "SIGKILL" in rejected["message"][0].as_py()
    assert int(file_metadata(bucket, "shapes-00001-")["kosmos2.rejected"]) == len(POISON)
    assert len(POISON) <= len(list(tmp_path.glob("death-*"))) <= MAX_DEATHS


def test_pictures_that_kill_their_actor_cost_themselves_alone(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    rejected_alone(bucket, kosmos2, tmp_path, point="annotate.sample", stage="annotate")
    assert len(POISON) <= len(list(tmp_path.glob("death-*"))) <= MAX_DEATHS
