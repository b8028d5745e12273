"""The parts of the benchmarks that run the whole job around a device that only waits."""

import json
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.bench.jobs import encoded, loop_shards, write_archive
from jobs.bench.light.model import LightDevice
from jobs.bench.light.reader import LightRead
from jobs.bench.observers import (
    Holdings,
    HoldingsSample,
    PaceMeter,
    PacePoint,
    WaitMeter,
    trend,
)
from jobs.cli import run_command
from kosmos2_core.prompts.tasks import BRIEF, DETAILED
from pipeline.dataset.shards import shard_id
from pipeline.driver.tally import Tally
from pipeline.schema import READ
from pipeline.spec.job import JobSpec
from tests.support.tars import a_shard


def test_a_light_device_says_something_valid_of_every_image() -> None:
    pixels = np.zeros((5, 3, 224, 224), np.uint8)
    answers = LightDevice(0.0).answer_pixels(pixels, [BRIEF, DETAILED], [])
    assert [tuple(answer.task for answer in of) for of in answers] == [("brief", "detailed")] * 5
    for entity in answers[0][0].entities:
        assert answers[0][0].caption[entity.start : entity.end] == entity.phrase
    assert [entity.phrase for entity in answers[0][0].entities] == ["a red square", "a cyan star"]


def test_a_light_device_does_one_image_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only its own sleeping moves."""
    now, lock = [100.0], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            now[0] += seconds

    monkeypatch.setattr("jobs.bench.light.model.time.monotonic", lambda: now[0])
    monkeypatch.setattr("jobs.bench.light.model.time.sleep", sleep)
    device = LightDevice(0.5)
    pixels = np.zeros((4, 3, 224, 224), np.uint8)
    device.answer_pixels(pixels, [BRIEF], [])
    assert now[0] == 102.0
    now[0] += 2.0  # nobody asks
    device.answer_pixels(pixels, [BRIEF, DETAILED], [])
    assert now[0] == 108.0
    assert (device.usage.busy_s, device.usage.span_s) == (6.0, 8.0)


def test_looped_shards_are_shards_of_their_own(tmp_path: Path) -> None:
    picture = encoded(np.zeros((4, 4, 3), np.uint8))
    archives = [write_archive(tmp_path / f"{name}.tar", picture, 3) for name in "ab"]
    loop_shards(tmp_path / "in", archives, 5)
    found = sorted((tmp_path / "in").iterdir())
    assert len({shard_id(path.as_uri()) for path in found}) == 5
    for path in found:
        with tarfile.open(path) as archive:
            assert archive.getnames() == ["000000.jpg", "000001.jpg", "000002.jpg"]


def pace(*looks: tuple[float, int, float], of: int) -> PaceMeter:
    found = PaceMeter(of=of)
    found._points = [PacePoint(at_s=a, images=i, cpu_s=c) for a, i, c in looks]
    return found


def test_a_pace_leaves_start_and_end_out() -> None:
    middle = [(10 + i, 20 + 5 * i, 0.5 * i) for i in range(13)]
    looks = [(0, 0, 0), (9, 2, 0), *middle, (60, 100, 9)]
    stretch = pace(*looks, of=100).steady()
    assert stretch.seconds == 5
    assert (stretch.images, stretch.cpu_s) == pytest.approx((25, 2.5))
    assert stretch.images_per_s == pytest.approx(5)


@pytest.mark.parametrize("tables", [30, 31, 32, 33, 34])
def test_a_pace_does_not_depend_on_where_in_a_burst_it_begins(tables: int) -> None:
    """Four tables of ten images every five seconds."""
    looks = [(5 * (i // 4) + 0.01 * (i % 4), 10 * i, 0.0) for i in range(tables)]
    assert pace(*looks, of=10 * tables).steady().images_per_s == pytest.approx(8, rel=0.01)


def test_a_run_too_short_has_no_pace() -> None:
    with pytest.raises(ValueError, match="too few images"):
        pace((0, 0, 0), (1, 100, 1), of=100).steady()


def test_a_pace_looks_when_images_came() -> None:
    found, tally = PaceMeter(of=10), Tally()
    for images in (0, 0, 3, 3, 4):
        tally.images_annotated = images
        found(tally.progress())
    assert [point.images for point in found._points] == [0, 3, 4]


PROGRESS = Tally().progress()
HELD = Holdings(memory_mb=100, handles=50, threads=20)
SAMPLE = HoldingsSample(
    at_s=0,
    images=0,
    driver=HELD,
    actors=HELD,
    objects_held=3,
    objects_stored=4,
    stored_mb=50,
    spilled_mb=0,
)


def memory(values: list[float], every_s: float = 60) -> list[HoldingsSample]:
    return [
        replace(SAMPLE, at_s=i * every_s, driver=replace(HELD, memory_mb=value))
        for i, value in enumerate(values)
    ]


def test_what_is_held_more_and_more_has_a_slope() -> None:
    """One MB a minute from the first quarter on, which itself does not count."""
    values = [500.0] * 10 + [100.0 + minute for minute in range(30)]
    found = trend(memory(values), lambda sample: sample.driver.memory_mb)
    assert round(found.slope_per_hour, 6) == 60
    assert (found.begin, found.end, found.peak) == (102.5, 126.5, 500)


def test_what_goes_up_and_down_has_none() -> None:
    values = [100.0, 120.0] * 40
    found = trend(memory(values), lambda sample: sample.driver.memory_mb)
    assert abs(found.slope_per_hour) < 3


def test_a_few_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="more minutes"):
        trend(memory([1.0] * 7), lambda sample: sample.driver.memory_mb)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["actors", "--actors", "0"], "at least one number of actors"),
        (["driver", "--images-per-shard", "0"], "at least one number of images per shard"),
        (["soak", "--minutes", "0"], "must be above 0"),
    ],
)
def test_what_tells_nothing_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def figures(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "bench", *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_actors_are_compared_with_one() -> None:
    found = figures("actors", "--actors", "1", "--actors", "2", "--image-ms", "4", "--seconds", "4")
    assert [run["actors"] for run in found["runs"]] == [1, 2]
    assert found["runs"][0]["speedup"] == 1
    assert found["runs"][1]["speedup"] > 0


@pytest.mark.parametrize(("images", "sizes"), [(3, [3, 1]), (2050, [2048, 2, 1])])
def test_a_light_reader_makes_tables_as_a_reader_does(images: int, sizes: list[int]) -> None:
    tables = list(LightRead(images=images)(JobSpec(input="in", output="out")).read(a_shard()))
    assert [table.num_rows for table in tables] == sizes
    assert all(table.schema.equals(READ) for table in tables)
    whole = pa.concat_tables(tables)
    whole.validate(full=True)
    found = whole["sample"].drop_null().to_pylist()
    assert [sample["index"] for sample in found] == list(range(images))
    assert whole["pixels"].null_count == 1
    assert whole["end"][-1].as_py()["samples"] == images


def test_what_a_waiting_process_takes_is_measured_while_no_images_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, cpu = iter([0.0, 1, 2, 3, 4, 5]), iter([0.0, 9, 9.5, 15, 15.1, 15.4])
    monkeypatch.setattr("jobs.bench.observers.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("jobs.bench.observers.time.process_time", lambda: next(cpu))
    found = WaitMeter()
    for images in (0, 5, 5, 8, 8, 8):
        found(replace(PROGRESS, images_annotated=images))
    assert found.busy == pytest.approx(0.3)  # of 0.5, 0.1 and 0.3


@pytest.mark.slow
def test_a_driver_has_its_figures() -> None:
    found = figures("driver", "--images-per-shard", "64", "--images", "2000")
    [run] = found["runs"]
    assert (run["images_per_shard"], run["shards"]) == (64, 31)
    assert 0 < run["driver_busy"] < 2
    image_s = run["driver_ms_per_shard"] / 64_000
    at_half = (0.5 - found["waiting_busy"]) / image_s
    assert run["images_per_s_at_half_a_core"] == pytest.approx(at_half)
    loop_s = found["loop_ns"][0] / 1e9
    assert run["loop_iterations_per_image"] == pytest.approx(image_s / loop_s)


@pytest.mark.slow
def test_a_soak_has_a_trend_of_each_figure() -> None:
    found = figures("soak", "--minutes", "0.4", "--image-ms", "5", "--shard-mb", "0.5")
    assert found["images"] > 0
    assert len(found["trends"]) == 10
    assert found["trends"]["drivers, MB"]["peak"] > 0
    assert found["trends"]["actors, threads"]["peak"] > 0
    assert found["trends"]["Ray objects stored, MB"]["peak"] > 0


KEPT = """
import gc, sys
from pathlib import Path
from jobs.bench.jobs import light_spec, loop_shards, run_light
from jobs.bench.local_ray import own_ray
from ray.data.block import BlockStats
def observe(progress):
    if progress.shards_done >= 30:
        print(sum(type(one) is BlockStats for one in gc.get_objects()), file=sys.__stdout__)
folder = Path(sys.argv[1])
loop_shards(folder / "in", [folder / "a.tar"], 40)
with own_ray(3):
    run_light(light_spec(folder / "in", folder / "out"), observe, image_cost_s=0.01)
"""


@pytest.mark.slow
def test_a_driver_keeps_nothing_of_blocks_that_are_done(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar", encoded(np.zeros((4, 4, 3), np.uint8)), 2)
    done = subprocess.run(
        [sys.executable, "-c", KEPT, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kept = list(map(int, done.stdout.split()))
    assert kept
    assert set(kept) == {0}
