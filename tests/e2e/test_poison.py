"""Pictures that kill whatever process decodes them."""

import tarfile
from dataclasses import replace
from pathlib import Path

from kosmos2_core.shapes.world import write_shards
from pipeline.faults import VARIABLE
from tests.e2e.cluster import Kosmos2
from tests.e2e.conftest import Bucket
from tests.e2e.dataset import file_metadata, named_rejects, primary_keys, read

POISON = (5, 66)  # in different tables of their shard
IMAGES = 70
MAX_DEATHS = 3 + len(POISON)


def test_pictures_that_kill_their_reader_cost_themselves_alone(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path / "in", shards=2, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path / "in")
    with tarfile.open(tmp_path / "in" / "shapes-00001.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")]
    # A file for each death, and for more than there may be.
    faults = [
        f"decoder.decode[key={names[index].removesuffix('.jpg')}]=kill@{tmp_path}/death-{index}-{n}"
        for index in POISON
        for n in range(2 * MAX_DEATHS)
    ]
    poisoned = replace(kosmos2, environment={**kosmos2.environment, VARIABLE: ";".join(faults)})

    done = poisoned.run("annotate", bucket.input, bucket.output)

    assert done.returncode == 0, done.stderr
    rejected = named_rejects(bucket)
    assert set(primary_keys(read(bucket), rejected).values()) == {1}
    assert len(primary_keys(read(bucket))) == 2 * IMAGES - len(POISON)
    assert [(r["index"], r["stage"], r["error_type"]) for r in rejected.to_pylist()] == [
        (index, "decode", "worker_died") for index in POISON
    ]
    assert "SIGKILL" in rejected["message"][0].as_py()
    assert int(file_metadata(bucket, "shapes-00001-")["kosmos2.rejected"]) == len(POISON)
    assert len(POISON) <= len(list(tmp_path.glob("death-*"))) <= MAX_DEATHS
