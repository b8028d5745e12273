"""Pictures that kill whatever process decodes or annotates them."""

import tarfile
from pathlib import Path

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2
from tests.support.dataset import file_metadata, named_rejects, primary_keys, read

IMAGES = 70
# Shard, index and stage. The first two are in different tables of their shard.
POISON = [(0, 5, "decode"), (0, 66, "decode"), (1, 66, "annotate")]
POINTS = {"decode": "decoder.decode", "annotate": "annotate.sample"}
MAX_DEATHS = 3  # of a table before its pictures are tried one by one


def poisoned(kosmos2: Kosmos2, shards: list[Path], deaths: Path) -> Kosmos2:
    """The points kill whoever comes by with one of those pictures, each time."""
    faults = []
    for shard, index, stage in POISON:
        with tarfile.open(shards[shard]) as tar:
            names = [name for name in tar.getnames() if name.endswith(".jpg")]
        key = names[index].removesuffix(".jpg")
        # A file for each death, and for more than there may be.
        faults += [
            f"{POINTS[stage]}[key={key}]=kill@{deaths}/death-of-{stage}-{index}-{n}"
            for n in range(2 * MAX_DEATHS)
        ]
    return kosmos2.with_faults(";".join(faults))


def test_pictures_that_kill_cost_themselves_alone(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "in", shards=2, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path / "in")

    done = poisoned(kosmos2.light, shards, tmp_path).run("annotate", bucket.input, bucket.output)

    assert done.returncode == 0, done.stderr
    rejected = named_rejects(bucket)
    assert set(primary_keys(read(bucket), rejected).values()) == {1}
    assert len(primary_keys(read(bucket))) == 2 * IMAGES - len(POISON)
    found = [
        (int(row["shard_id"].split("-")[1]), row["index"], row["stage"], row["error_type"])
        for row in rejected.to_pylist()
    ]
    assert sorted(found) == [(*poison, "worker_died") for poison in POISON]
    assert "SIGKILL" in next(r["message"] for r in rejected.to_pylist() if r["stage"] == "decode")
    assert int(file_metadata(bucket, "shapes-00000-")["kosmos2.rejected"]) == 2
    for stage, pictures in (("decode", 2), ("annotate", 1)):
        deaths = len(list(tmp_path.glob(f"death-of-{stage}-*")))
        assert pictures <= deaths <= MAX_DEATHS + pictures
