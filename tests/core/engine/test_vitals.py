"""What an engine says of itself while it runs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from kosmos2_core.engine.shared_engine import SharedEngine
from kosmos2_core.engine.vitals import Vitals
from tests.support.engine_models import (
    count_steps,
    engine_of,
    pixels,
    prompt_of,
    requests_of,
    shapes,
)

SLOTS, IMAGES = 4, 11


def test_slots_in_use_and_those_that_wait_are_told_at_any_moment():
    engine = engine_of(shapes(), slots=SLOTS)
    assert engine.vitals == Vitals(slots=SLOTS)
    run, seen = engine.generate(requests_of(pixels(IMAGES), prompt_of(shapes))), []
    for done, _ in enumerate(run, 1):
        vitals = engine.vitals
        assert 0 <= vitals.live <= SLOTS
        assert vitals.live + vitals.waiting <= IMAGES - done
        seen.append(vitals.live)
    assert max(seen) >= SLOTS - 1  # one has just ended
    assert (engine.vitals.live, engine.vitals.waiting) == (0, 0)


def test_two_runs_at_once_are_told_together():
    engine = engine_of(shapes(), slots=SLOTS)
    runs = [engine.generate(requests_of(pixels(IMAGES), prompt_of(shapes))) for _ in range(2)]
    for run in runs:
        next(run)
    assert SLOTS < engine.vitals.live <= 2 * SLOTS
    runs[0].close()
    assert engine.vitals.live <= SLOTS


def test_each_decode_step_is_counted_and_timed_alone(monkeypatch):
    rows = count_steps(monkeypatch)
    now = 0.0

    def later() -> float:
        nonlocal now
        now += 0.5
        return now

    monkeypatch.setattr("kosmos2_core.engine.loop.time.perf_counter", later)
    engine = engine_of(shapes(), slots=SLOTS)
    for _ in range(2):
        list(engine.generate(requests_of(pixels(IMAGES), prompt_of(shapes))))
    assert engine.vitals.decode_steps == len(rows) > 0
    assert engine.vitals.decode_s == 0.5 * len(rows)


def test_prompts_of_all_callers_wait_until_they_have_a_slot():
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        """Keeps what it has to say until it is let go."""

        vitals = Vitals(slots=SLOTS)

        def __init__(self, engine):
            self.engine = engine

        def generate(self, requests):
            for completion in self.engine.generate(requests):
                self.vitals = Vitals(slots=SLOTS, live=SLOTS)
                begun.set()
                go_on.wait(60)
                yield completion

    shared = SharedEngine(Slow(engine_of(shapes(), slots=SLOTS)))
    calls = [requests_of(pixels(IMAGES), prompt_of(shapes)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answered = [pool.submit(lambda call=call: list(shared.generate(call))) for call in calls]
        assert begun.wait(60)
        while len(shared._calls) < 2:
            time.sleep(0.001)
        assert shared.vitals == Vitals(slots=SLOTS, live=SLOTS, waiting=2 * IMAGES - SLOTS)
        go_on.set()
        assert [len(answers.result(60)) for answers in answered] == [IMAGES] * 2
    assert shared.vitals.waiting == 0
