"""A process that reads every file of some folders as a shard, and watches itself meanwhile.

    python -m tests.hostile.reader WARM_UP_FOLDER FOLDER...

One line of JSON for each file, flushed, so that the file that ends this process is known, and a
last one with all that it touched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.dataset.shards import shard_of
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.kinds import InputKind
from pipeline.storage import InputStore

TASKS = ("brief", "detailed")
_KINDS: dict[str, InputKind] = {"parquet": "parquet", "arrow": "arrow"}
# What touches anything but this process's memory.
_TOUCHING = ("os.", "shutil.", "subprocess.", "socket.", "tempfile.", "ctypes.dlopen", "exec")
_HARMLESS = ("os.scandir", "os.listdir")


class Watch:
    """Every write, removal, process and connection that Python is asked for from now on."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _is_write(arguments[2]):
            self.seen.append(f"{event} {arguments[0]!r}")
        elif event.startswith(_TOUCHING) and event not in _HARMLESS:
            self.seen.append(f"{event} {arguments!r}"[:200])


def _is_write(flags: int | None) -> bool:
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    reader = ShardReader(store=InputStore(), tasks=TASKS, exif="apply")
    for source in InputStore().list(str(folder)).objects:
        kind = _KINDS.get(source.uri.rpartition(".")[2], "webdataset")
        tables = list(reader.read(shard_of(source, kind)))
        samples, rejected, ends = (
            [row for table in tables for row in table[kind].drop_null().to_pylist()]
            for kind in ("sample", "rejected", "end")
        )
        yield {
            "samples": [[row["index"], row["key"]] for row in samples],
            "rejected": [[row["index"], row["task"], row["error_type"]] for row in rejected],
            "ends": ends,
        }


def peak_mib() -> int:
    """Of this program: getrusage would go on with the peak of whoever started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def read_in_a_process(
    warm_up: Path, folders: Sequence[Path], surroundings: Path
) -> subprocess.CompletedProcess[str]:
    """Among folders that nobody may touch; what it writes is said above."""
    here = surroundings / "a" / "b"
    here.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tests.hostile.reader", str(warm_up), *map(str, folders)],
        cwd=here,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "TMPDIR": str(surroundings),
            "HOME": str(surroundings),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def main(warm_up: Path, *folders: Path) -> None:
    list(read_folder(warm_up))  # imports and thread pools are no writes of a hostile file
    before_mib, watch = peak_mib(), Watch()
    for folder in folders:
        for found in read_folder(folder):
            print(json.dumps({**found, "grown_mib": peak_mib() - before_mib}), flush=True)
    print(json.dumps(watch.seen))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
