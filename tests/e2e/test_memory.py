"""Readers that Ray kills because the node runs out of memory."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kosmos2_core.shapes.world.shards import write_shards
from pipeline.dataset.shards import shard_of
from pipeline.execution.read_task import READER_ATTEMPTS
from pipeline.storage import ObjectInfo
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.dataset import primary_keys, read
from tests.support.s3 import S3Server

pytestmark = pytest.mark.slow  # nothing else may take or give back much memory meanwhile

SHARDS, IMAGES = 3, 20
FREE_BYTES = 4 << 30  # for Ray, the model and readers as they are


@pytest.fixture(scope="module")
def tight(s3_server: S3Server) -> Iterator[Kosmos2]:
    """A cluster on a node that may take `FREE_BYTES` more than now."""
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + FREE_BYTES) / memory.total
    environment = {
        **s3_server.environment,
        "RAY_memory_usage_threshold": f"{threshold:.3f}",
        "RAY_memory_monitor_refresh_ms": "100",
        "RAY_task_oom_retry_delay_base_ms": "100",
    }
    with running_cluster(environment) as kosmos2:
        yield kosmos2


@pytest.fixture(autouse=True)
def shards(bucket: Bucket, tmp_path: Path) -> None:
    write_shards(tmp_path / "in", shards=SHARDS, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path / "in")


def kills(kosmos2: Kosmos2) -> int:
    """Of workers, for want of memory, as Ray's own log has them."""
    logs = Path(kosmos2.environment["RAY_TMPDIR"]).glob("session_2*/logs/raylet.*")
    return sum(log.read_text().count("Ray killed") for log in logs)


def test_a_reader_killed_for_memory_once_reads_again(
    bucket: Bucket, tight: Kosmos2, tmp_path: Path
) -> None:
    done = tight.with_faults(f"reader.block=hog@{tmp_path}/hog").run(
        "annotate", bucket.input, bucket.output
    )
    assert done.returncode == 0, done.stderr
    assert kills(tight) > 0
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == SHARDS * IMAGES


def test_a_shard_that_takes_all_memory_again_and_again_fails_alone(
    bucket: Bucket, tight: Kosmos2, tmp_path: Path
) -> None:
    greedy = shard_of(ObjectInfo(uri=f"{bucket.input}shapes-00001.tar", size_bytes=1, etag="e"))
    faults = (
        f"reader.block[shard_id={greedy.shard_id}]=hog@{tmp_path}/hog-{n}"
        for n in range(READER_ATTEMPTS)
    )
    done = tight.with_faults(";".join(faults)).run("annotate", bucket.input, bucket.output)
    assert done.returncode == 3, done.stderr
    assert "check the memory of the nodes" in done.stderr
    assert len(list(tmp_path.glob("hog-*"))) == READER_ATTEMPTS
    assert len(primary_keys(read(bucket))) == (SHARDS - 1) * IMAGES
