"""Jobs over any number of shards without images.

The files of summarised commits are not Parquet, so a run that reads them fails.
"""

import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from jobs.bench.light.model import write_light_record
from pipeline.dataset.commit import Committed
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.ledger import COMMITS_PER_SUMMARY, Ledger
from pipeline.dataset.shards import Shard
from pipeline.driver.committer import Committer
from pipeline.plan.planning import settle_plan
from pipeline.schema import ANNOTATED, ShardEnd
from pipeline.spec.job import JobSpec
from pipeline.storage import StorageOptions, open_output
from pipeline.storage.objects import Location, locate
from pipeline.storage.s3 import S3

IMAGES_PER_SHARD = 1000  # as the ledger says
_EMPTY_ARCHIVE = bytes(tarfile.RECORDSIZE)
_WRITERS = 32
_PER_FOLDER = 1000


def scale_spec(root: str, output: str = "out") -> JobSpec:
    """Return the job on the inputs under `root`, a directory or s3:// prefix."""
    return JobSpec(input=f"{root}/in/", output=f"{root}/{output}", device="cpu")


def make_inputs(root: str, shards: int) -> None:
    """Write archives without members: a reader is done with one at once."""
    keys = (f"in/{number // _PER_FOLDER:04d}/part-{number:06d}.tar" for number in range(shards))
    _write(root, ((key, _EMPTY_ARCHIVE) for key in keys))


def commit_most(root: str, share: float) -> int:
    """Commit a share of the job's plan, as a killed run leaves it; return how many shards are left.

    All commits but the last are summarised.
    """
    spec = scale_spec(root)
    store = open_output(spec.output)
    plan = settle_plan(store, spec)
    write_light_record(spec)
    done = plan.shards[: round(len(plan.shards) * share)]
    summarised = len(done) // COMMITS_PER_SUMMARY * COMMITS_PER_SUMMARY
    if summarised == len(done):
        summarised = max(summarised - COMMITS_PER_SUMMARY // 2, 0)
    names = (annotations_key(shard.shard_id) for shard in done[:summarised])
    _write(spec.output, ((name, b"not to be read") for name in names))
    _summarise(spec, done[:summarised])
    _commit(spec, done[summarised:])
    return len(plan.shards) - len(done)


def _summarise(spec: JobSpec, shards: Sequence[Shard]) -> None:
    ledger = Ledger(open_output(spec.output))
    for start in range(0, len(shards), COMMITS_PER_SUMMARY):
        ledger.summarise(
            [
                Committed(
                    shard_id=shard.shard_id,
                    commit_id=shard.shard_id,
                    samples=IMAGES_PER_SHARD,
                    annotated=IMAGES_PER_SHARD,
                    rejected=0,
                    truncated=False,
                )
                for shard in shards[start : start + COMMITS_PER_SUMMARY]
            ]
        )


def _commit(spec: JobSpec, shards: Sequence[Shard]) -> None:
    """Commit shards without samples through the committer."""
    job = open_dataset(spec.output, StorageOptions())
    committer = Committer(job.store, job.record, shards, max_reject_rate=1)
    for shard in shards:
        row = {"shard_id": shard.shard_id, "end": asdict(ShardEnd(samples=0))}
        committer.add(pa.Table.from_pylist([row], schema=ANNOTATED))
    for outcome in committer.close():
        assert isinstance(outcome, Committed), outcome


def _write(root: str, objects: Iterable[tuple[str, bytes]]) -> None:
    """Write many objects at once, without making them durable."""
    at = locate(root)
    if at.scheme == "file":
        _write_files(Path(at.path), objects)
    else:
        s3 = S3(StorageOptions())
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(lambda one: s3.put(_under(at, one[0]), one[1]), objects):
                pass


def _write_files(root: Path, objects: Iterable[tuple[str, bytes]]) -> None:
    folders: set[Path] = set()
    for key, data in objects:
        path = root / key
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        with path.open("wb") as file:
            if data.strip(b"\0"):
                file.write(data)
            else:
                file.truncate(len(data))  # takes no room


def _remove(root: str) -> None:
    """Delete all objects under an s3:// prefix. A directory is left to its maker."""
    at = locate(root)
    if at.scheme == "s3":
        s3 = S3(StorageOptions())
        found = [locate(info.uri) for info in s3.list(at._replace(path=f"{at.path}/"))]
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(s3.delete, found):
                pass


@contextmanager
def workplace(at: str | None) -> Iterator[str]:
    """Yield a new folder under a directory or s3:// prefix, and remove it at the end."""
    if at is not None and at.startswith("s3://"):
        root = f"{at.rstrip('/')}/{uuid4().hex[:12]}"
        try:
            yield root
        finally:
            _remove(root)
    else:
        with tempfile.TemporaryDirectory(dir=at) as folder:
            yield folder


def _under(at: Location, key: str) -> Location:
    return at._replace(path=f"{at.path.rstrip('/')}/{key}")


def forget_reads(spec: JobSpec) -> None:
    """Reset the inputs' access times, from which `were_read` tells reads."""
    for path in _archives(spec):
        os.utime(path, ns=(0, path.stat().st_mtime_ns))


def were_read(spec: JobSpec) -> set[str]:
    """Return the URIs of the inputs that were read since `forget_reads`."""
    return {f"file://{path}" for path in _archives(spec) if path.stat().st_atime_ns}


def _archives(spec: JobSpec) -> Iterator[Path]:
    return Path(locate(spec.input).path).rglob("*.tar")
