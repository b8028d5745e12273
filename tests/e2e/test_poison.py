"""Pictures that kill whatever process decodes or annotates them."""

import tarfile
from pathlib import Path

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2
from tests.support.dataset import file_metadata, named_rejects, primary_keys, read

IMAGES = 70
POISON = {"annotate": 5, "decode": 66}  # the index, in the first and second table of the shard
POINTS = {"decode": "decoder.decode", "annotate": "annotate.sample"}
MAX_DEATHS = 3  # of a table before its pictures are tried one by one


def poisoned(kosmos2: Kosmos2, shard: Path, deaths: Path) -> Kosmos2:
    """The points kill whoever comes by with one of those pictures, each time."""
    with tarfile.open(shard) as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")]
    # A file for each death, and for more than there may be.
    faults = [
        f"{POINTS[stage]}[key={Path(names[index]).stem}]=kill@{deaths}/death-of-{stage}-{n}"
        for stage, index in POISON.items()
        for n in range(2 * MAX_DEATHS)
    ]
    return kosmos2.with_faults(";".join(faults))


def test_pictures_that_kill_cost_themselves_alone(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    [shard] = write_shards(tmp_path / "in", shards=1, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path / "in")

    done = poisoned(kosmos2.light, shard, tmp_path).run("annotate", bucket.input, bucket.output)

    assert done.returncode == 0, done.stderr
    rejected = named_rejects(bucket)
    assert set(primary_keys(read(bucket), rejected).values()) == {1}
    assert len(primary_keys(read(bucket))) == IMAGES - len(POISON)
    found = [(row["index"], row["stage"], row["error_type"]) for row in rejected.to_pylist()]
    assert sorted(found) == [(index, stage, "worker_died") for stage, index in POISON.items()]
    assert "SIGKILL" in next(r["message"] for r in rejected.to_pylist() if r["stage"] == "decode")
    assert int(file_metadata(bucket, "shapes-00000-")["kosmos2.rejected"]) == len(POISON)
    for stage in POISON:
        assert 1 <= len(list(tmp_path.glob(f"death-of-{stage}-*"))) <= MAX_DEATHS + 1
