"""How far a run is."""

import json
import time
from dataclasses import asdict

import pytest

from pipeline.costs.actor_time import ActorTime
from pipeline.driver.tally import DriverState, Tally
from pipeline.progress import WINDOW_S, Progress


def begun(**changes: float) -> Tally:
    tally = Tally(started=time.monotonic() - 100, **changes)
    tally.begin(shards=10, bytes_=1000, shards_done=2, bytes_done=200, shards_failed=1)
    return tally


def test_a_run_begins_with_what_was_done_before() -> None:
    progress = begun().progress()
    assert (progress.shards_total, progress.shards_done, progress.shards_failed) == (10, 2, 1)
    assert (progress.bytes_total, progress.bytes_done) == (1000, 200)
    assert (progress.images_annotated, progress.images_rejected) == (0, 0)
    assert (progress.images_per_s, progress.eta_s) == (0.0, None)
    assert progress.elapsed_s == pytest.approx(100, abs=1)


def test_the_pace_counts_from_the_first_row() -> None:
    tally = begun(first_row=time.monotonic() - 50)
    tally.add_images(annotated=90, rejected=10)
    assert tally.progress().images_per_s == pytest.approx(2, rel=0.1)


def test_the_first_row_is_noted_once() -> None:
    tally = begun()
    tally.add_images(annotated=1, rejected=0)
    first = tally.first_row
    tally.add_images(annotated=1, rejected=0)
    assert first is not None
    assert tally.first_row == first


def test_the_rest_is_estimated_from_the_bytes_of_this_run() -> None:
    tally = begun(first_row=time.monotonic() - 50)
    tally.add_shard(100)
    tally.add_shard(100)
    progress = tally.progress()
    assert (progress.shards_done, progress.bytes_done) == (4, 400)
    assert progress.eta_s == pytest.approx(150, rel=0.1)  # 600 left, 200 took 50 s


def test_images_of_several_tasks_come_in_fractions() -> None:
    tally = begun()
    for _ in range(3):
        tally.add_images(annotated=1 / 3, rejected=2 / 3)
    progress = tally.progress()
    assert (progress.images_annotated, progress.images_rejected) == (1, 2)


def test_the_engines_of_all_actors_are_busy_together() -> None:
    tally = begun()
    assert tally.progress().engine_busy is None
    tally.note_usage("a", images=3, busy_s=6, span_s=8)
    tally.note_usage("b", images=0, busy_s=1, span_s=2)
    tally.note_usage("a", images=3, busy_s=2, span_s=4)  # overtaken
    progress = tally.progress()
    assert progress.engine_busy == pytest.approx(0.7)
    [pace] = progress.actors  # the other one gave nothing of late
    assert (pace.name, pace.engine_busy) == ("a", 0.75)
    assert pace.images_per_s > 0


def test_the_pace_of_now_forgets_what_was_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = begun()
    tally.add_images(annotated=600, rejected=0)
    now += 100
    tally.add_images(annotated=90, rejected=0)
    progress = tally.progress()
    assert progress.images_per_s == pytest.approx(6.9)
    assert progress.images_per_s_now == pytest.approx(90 / WINDOW_S)


def test_images_that_come_at_once_give_no_pace_beyond_them() -> None:
    tally = begun()
    tally.add_images(annotated=20, rejected=0)
    tally.note_usage("a", images=20, busy_s=1, span_s=1)
    progress = tally.progress()
    paces = (progress.images_per_s, progress.images_per_s_now, progress.actors[0].images_per_s)
    assert paces == (20, 20, 20)


def test_progress_reads_back_from_json() -> None:
    tally = begun()
    tally.note_usage("a", images=3, busy_s=6, span_s=8)
    progress = tally.progress()
    assert Progress.from_dict(json.loads(json.dumps(asdict(progress)))) == progress


def test_readers_are_as_busy_as_the_cost_of_an_image_and_the_pace_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = begun()
    tally.note_driver(0, DriverState(cpu_s=0, readers=4.0))
    assert tally.progress().load.readers_busy is None  # no shard was read to its end
    tally.add_images(annotated=1, rejected=0)
    now += 10
    tally.add_images(annotated=99, rejected=0)  # 10 images/s
    tally.note_read(samples=50, read_s=15, cpu_s=20)  # 0.3 s and 0.4 s per image
    tally.note_usage("a", images=100, busy_s=2, span_s=10, slots=8, live=2)
    load = tally.progress().load
    assert (load.readers_busy, load.reader_cores) == (pytest.approx(3.0), pytest.approx(4.0))
    assert (load.engine_busy, load.slots_used) == (0.2, 0.25)
    assert load.readers == 4.0
    tally.add_images(annotated=900, rejected=0)  # a burst
    now += 1
    load = tally.progress().load
    assert (load.readers_busy, load.reader_cores) == (4.0, pytest.approx(4 * 20 / 15))


def test_engines_are_as_busy_as_they_were_in_the_last_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = begun()
    tally.note_usage("a", images=1, busy_s=0, span_s=100)
    now += WINDOW_S + 1
    tally.note_usage("a", images=1, busy_s=30, span_s=160)
    progress = tally.progress()
    assert progress.load.engine_busy == 0.5
    assert progress.engine_busy == 30 / 160


def test_the_driver_is_as_busy_as_its_processor_time_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now, spent = time.monotonic(), 7.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = begun()
    for _ in range(20):
        tally.note_driver(0, DriverState(cpu_s=spent))
        now, spent = now + 2, spent + 1
    load = tally.progress().load
    assert load.driver_cores == pytest.approx(0.5, rel=0.1)
    assert load.drivers == 1


def test_of_several_drivers_the_busiest_counts_also_after_it_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = begun()
    for second in range(40):
        tally.note_driver(0, DriverState(cpu_s=second / 10, puts=2))
        tally.note_driver(1, DriverState(cpu_s=second % 20 * 0.8, tables=1, puts=3, readers=4))
        now += 1
    load = tally.progress().load
    assert load.driver_cores == pytest.approx(0.8, rel=0.1)
    assert (load.drivers, load.puts_waiting, load.readers) == (2, 5, 4)
    assert tally.waiting.tables == 1


def test_the_time_of_actors_is_that_of_all_drivers_and_of_their_former_processes() -> None:
    tally = Tally()

    def note(number: int, *, cpu_s: float, held_s: float, open_s: float) -> None:
        whole, beside = (ActorTime.of(held_s=each, busy_s=0.0, gpus=1) for each in (held_s, open_s))
        state = DriverState(cpu_s=cpu_s, actor_time=whole, open_time=beside)
        tally.note_driver(number, state)

    note(0, cpu_s=1.0, held_s=10.0, open_s=3.0)
    note(1, cpu_s=1.0, held_s=20.0, open_s=5.0)
    note(0, cpu_s=0.1, held_s=1.0, open_s=1.0)  # its process died, and another one began
    note(0, cpu_s=0.2, held_s=2.0, open_s=0.5)
    progress = tally.progress()
    assert progress.actor_time.gpu_held_s == 10.0 + 2.0 + 20.0
    assert progress.open_time.gpu_held_s == 3.0 + 0.5 + 5.0
