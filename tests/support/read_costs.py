"""The CPU that reads of S3 take by obstore and by s3fs: `python -m tests.support.read_costs`.

Prints JSON: milliseconds of this process per object of 100 KB, read as a manifest's are (8 threads,
each the whole object), and per MiB of a tar, with the ratio of the medians.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from unittest.mock import patch

from pipeline.storage import InputStore
from pipeline.storage.clouds.quick_reads import QuickReads
from tests.support.s3 import running_s3_server

TURNS = 5
OBJECTS, OBJECT_BYTES = 400, 100_000
TAR_BYTES = 64 << 20
THREADS = 8


def main() -> None:
    with running_s3_server() as server:
        os.environ.update(server.environment)
        bucket, client, store = server.make_bucket("costs"), server.client(), InputStore()
        for number in range(OBJECTS):
            data = os.urandom(OBJECT_BYTES)
            client.put_object(Bucket=bucket, Key=f"images/{number:05}.jpg", Body=data)
        client.put_object(Bucket=bucket, Key="a.tar", Body=os.urandom(TAR_BYTES))
        uris = [info.uri for info in store.list(f"s3://{bucket}/images/").objects]
        [tar] = store.list(f"s3://{bucket}/a.tar").objects

        def read_objects() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(lambda uri: store.read_whole(uri, max_bytes=1 << 20), uris):
                    pass

        def read_tar() -> None:
            with store.open(tar) as file:
                while file.read(1 << 16):
                    pass

        print(
            json.dumps(
                {
                    "cpu_ms_per_object": _compare(read_objects, OBJECTS),
                    "cpu_ms_per_mib": _compare(read_tar, TAR_BYTES >> 20),
                }
            )
        )


def _compare(read: Callable[[], None], units: int) -> dict[str, float]:
    spent: dict[str, list[float]] = {"obstore": [], "s3fs": []}
    for _ in range(TURNS + 1):  # the first makes clients and connections
        spent["obstore"].append(_cpu_ms(read) / units)
        with patch.object(QuickReads, "_read", lambda *_: None):
            spent["s3fs"].append(_cpu_ms(read) / units)
    medians = {name: round(median(times[1:]), 3) for name, times in spent.items()}
    return {**medians, "ratio": round(medians["s3fs"] / medians["obstore"], 1)}


def _cpu_ms(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


if __name__ == "__main__":
    main()
