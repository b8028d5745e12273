"""A shard that is a tar, and a reader of it."""

from pathlib import Path

from pipeline.dataset.shards import Shard, shard_of
from pipeline.reading.shard_reader import ShardReader
from pipeline.storage import InputStore
from tests.support.tars import Member

BROKEN: list[Member] = [("broken.jpg", b"no picture")]
TAR_READER = ShardReader(store=InputStore(), tasks=("brief", "detailed"), exif="apply")


def tar_shard(folder: Path, data: bytes) -> Shard:
    """That tar in a file, as the plan has it."""
    (folder / "a.tar").write_bytes(data)
    [source] = InputStore().list(str(folder)).objects
    return shard_of(source)
