"""The memory, disk and time of an index of annotated images (`--skip-copies`).

python -m tests.support.originals_at_scale --images 100000000
"""

import argparse
import resource
import time

import numpy as np

from pipeline.dataset.originals import OriginalIndex

_PER_SHARD = 1000
_LOOKED_UP = 100  # groups of 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    images = parser.parse_args().images
    random = np.random.default_rng(0)
    before_mb = _peak_mb()
    index = OriginalIndex()
    started = time.process_time()
    for number in range(0, images, _PER_SHARD):
        index.add(f"shard-{number:012d}", dict(enumerate(_hashes(random, _PER_SHARD))))
    adding_s = time.process_time() - started
    started = time.process_time()
    for _ in range(_LOOKED_UP):
        index.find(_hashes(random, 64))
    finding_s = time.process_time() - started
    print(
        f"{images} images: {_file_mb(index):.0f} MB on disk, "
        f"{_peak_mb() - before_mb:.0f} MB of memory, {adding_s / images * 1e6:.1f} us to add "
        f"an image, {finding_s / _LOOKED_UP * 1e3:.2f} ms to look up 64"
    )


def _file_mb(index: OriginalIndex) -> float:
    (pages,), (page_bytes,) = (
        index._database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
    )
    return pages * page_bytes / 1e6


def _hashes(random: np.random.Generator, count: int) -> list[bytes]:
    data = random.bytes(32 * count)
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
