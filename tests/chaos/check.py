"""What must hold after every schedule, read from the store without any code of ours."""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.bucket import JobBucket
from tests.support.dataset import primary_keys, share_of_objects_right

RIGHT = 0.95  # of the objects; 360 scenes have too few for the 99.9 % of 4,000
_FOLDERS = ("actor_time", "annotations", "failed", "ledger", "leases", "plan", "rejected")
_FILES = ("job.json", "_SUCCESS.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    lost: int  # samples neither annotated nor rejected
    twice: int
    right: float  # share of the objects named and boxed rightly
    wrong: tuple[str, ...]  # all else that should not be

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.wrong) and self.right >= RIGHT


def check(bucket: JobBucket, samples: dict[str, int]) -> Found:
    """`samples` of each shard, by the stem of its name."""
    wrong = [f"{key}: not a file of the dataset" for key in bucket.objects("out/") if _is_odd(key)]
    for folder in ("leases", "failed"):
        wrong += [f"{key}: left behind" for key in bucket.objects(f"out/{folder}/")]
    committed = bucket.objects("out/annotations/")
    ids = {key.rpartition("-")[0].rpartition("/")[2]: key for key in committed}
    wrong += [f"{stem}: not a shard of the input" for stem in ids.keys() - samples.keys()]
    tables, rejects = [], []
    for key in ids.values():
        try:
            table = pq.read_table(io.BytesIO(bucket.get(key)))
            tables.append(table)
            if name := table.schema.metadata[b"kosmos2.rejects"].decode():
                rejects.append(pq.read_table(io.BytesIO(bucket.get(f"out/{name}"))))
        except (pa.ArrowException, KeyError) as error:
            wrong.append(f"{key}: cannot be read: {error}")
    keys = primary_keys(*tables, *rejects)
    stems = {stem: key.rpartition("/")[2].removesuffix(".parquet") for stem, key in ids.items()}
    expected = {
        (stems.get(stem, stem), index, "brief")
        for stem, count in samples.items()
        for index in range(count)
    }
    wrong += [f"{key}: not a sample of the input" for key in keys.keys() - expected]
    return Found(
        lost=len(expected - keys.keys()),
        twice=sum(count > 1 for count in keys.values()),
        right=share_of_objects_right(row for table in tables for row in table.to_pylist()),
        wrong=tuple(wrong),
    )


def _is_odd(key: str) -> bool:
    folder, _, name = key.removeprefix("out/").rpartition("/")
    if name.startswith("."):
        return False  # nobody's business, such as what a probe left when it was killed
    return name not in _FILES if not folder else folder not in _FOLDERS
