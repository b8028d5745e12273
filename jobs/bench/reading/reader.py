"""`kosmos2 bench reader`: CPU time per image of a reader, by part."""

import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.images import photograph
from jobs.bench.jobs import write_archive
from jobs.bench.machine import BenchResult, cpu_s, load_average
from jobs.bench.world import workplace
from jobs.terminal import DataTable
from kosmos2_core.comparison.machine import one_torch_thread, versions
from pipeline.dataset.listings import HeldListings
from pipeline.errors import SpecError
from pipeline.estimate.reader_cost import ReaderCost, reader_cost
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.reading.sample_reader import SampleReader
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, open_output
from pipeline.storage.objects import locate

_SEED = 5
_WRITERS = 16
_INPUTS = {"tar": "tar/", "objects": "objects/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRun:
    """Costs of one kind of input in one store.

    `parts` are measured in one thread. `whole_ms` is the CPU time of the real reader per image, all
    its threads, with `images_per_core_s` as its reciprocal.
    """

    store: str
    input: str
    parts: ReaderCost
    whole_ms: float
    images_per_core_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderBench(BenchResult):
    runs: tuple[ReaderRun, ...]
    width: int
    height: int
    bytes_per_image: int
    images: int
    rounds: int
    versions: dict[str, str]

    def page(self) -> Iterator[str | DataTable]:
        size = f"{self.width}x{self.height} JPEGs of {self.bytes_per_image / 1000:.0f} kB"
        table = DataTable(title=f"Reading {size}, CPU ms per image")
        for heading in ("store", "input", "fetch", "decode", "resize", "table", "whole"):
            table.add_column(heading)
        table.add_column("images/s per core", justify="right")
        for run in self.runs:
            parts = run.parts
            each = (parts.fetch_ms, parts.decode_ms, parts.resize_ms, parts.table_ms, run.whole_ms)
            table.add_row(
                run.store, run.input, *(f"{ms:.2f}" for ms in each), f"{run.images_per_core_s:.0f}"
            )
        yield table
        yield self.conditions


def bench_reader(
    *, images: int, rounds: int, width: int, height: int, at: str | None
) -> ReaderBench:
    """Measure tars and one object per image, on this machine's disk and under `at`.

    Raises SpecError, StorageError.
    """
    if min(images, rounds, width, height) < 1:
        raise SpecError("--images, --rounds, --width and --height are at least 1")
    places = [None, *([] if at is None else [at])]
    stores = ["local", *([] if at is None else [locate(at).scheme])]
    load_before, image = load_average(), photograph(_SEED, width, height)
    runs: list[ReaderRun] = []
    with one_torch_thread():
        for store, place in zip(stores, places, strict=True):
            with workplace(place) as root:
                _write(root, image, images)
                runs += (
                    _run(store, kind, f"{root}/{folder}", images, rounds)
                    for kind, folder in _INPUTS.items()
                )
    return ReaderBench(
        runs=tuple(runs),
        width=width,
        height=height,
        bytes_per_image=len(image),
        images=images,
        rounds=rounds,
        load_before=load_before,
        versions=versions("torch", "pillow", "simplejpeg", "pyarrow"),
    )


def _write(root: str, image: bytes, images: int) -> None:
    store = open_output(root)
    with TemporaryDirectory() as folder:
        archive = write_archive(Path(folder) / "images.tar", image, images)
        store.put(f"{_INPUTS['tar']}images.tar", archive.read_bytes())
    keys = (f"{_INPUTS['objects']}{number:06d}.jpg" for number in range(images))
    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(lambda key: store.put(key, image), keys):
            pass


def _run(store: str, kind: str, uri: str, images: int, rounds: int) -> ReaderRun:
    spec, listings = JobSpec(input=uri, output=f"{uri}out"), HeldListings()
    shards = cut(discover(spec), spec, listings).shards
    samples = SampleReader(store=InputStore(), listings=listings)
    reader = ShardReader(
        store=InputStore(), tasks=spec.task_names, exif=spec.exif, listings=listings
    )

    def whole() -> None:
        for shard in shards:
            for _ in reader.read(shard):
                pass

    whole()  # the first round is not counted
    found: list[tuple[ReaderCost, float]] = []
    for _ in range(rounds):
        parts = reader_cost(samples, shards, images=images)
        assert parts, "the images were written"
        found.append((parts, 1000 * cpu_s(whole) / images))
    whole_ms = statistics.median(ms for _, ms in found)
    return ReaderRun(
        store=store,
        input=kind,
        parts=_median([parts for parts, _ in found]),
        whole_ms=whole_ms,
        images_per_core_s=1000 / whole_ms,
    )


def _median(costs: Sequence[ReaderCost]) -> ReaderCost:
    names = [each.name for each in fields(ReaderCost)]
    return ReaderCost(
        **{name: statistics.median(getattr(cost, name) for cost in costs) for name in names}
    )
