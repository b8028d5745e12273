"""What is reported of an engine; that it arrives at Prometheus, tests/e2e/test_jobs.py sees."""

import pytest

from kosmos2_core.engine.vitals import Vitals
from pipeline.concurrency import SharedCounter
from pipeline.execution import metrics


def test_of_an_engine_its_state_is_set_and_its_work_since_is_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: dict[str, float] = {}
    monkeypatch.setattr(metrics, "_set", found.__setitem__)
    monkeypatch.setattr(metrics, "count", found.__setitem__)
    before = Vitals(slots=16, live=3, waiting=9, decode_steps=100, decode_s=5.0)
    now = Vitals(slots=16, live=12, waiting=0, decode_steps=140, decode_s=7.0)
    metrics.show_vitals(now, before)
    assert found == {
        "kosmos2_slots": 16,
        "kosmos2_slots_busy": 12,
        "kosmos2_prompts_waiting": 0,
        "kosmos2_decode_steps": 40,
        "kosmos2_decode_step_seconds": 2.0,
    }


def test_an_engine_is_watched_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([3, 5])
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(metrics, "_WATCH_S", 0.0)
    monkeypatch.setattr(
        metrics,
        "show_vitals",
        lambda now, before: seen.append((before.decode_steps, now.decode_steps)),
    )
    with pytest.raises(StopIteration):
        metrics._watch(lambda: Vitals(decode_steps=next(steps)))
    assert seen == [(0, 3), (3, 5)]


def test_what_is_taken_from_a_meter_is_not_taken_twice() -> None:
    meter = SharedCounter()
    meter.add(2.5)
    meter.add()
    assert (meter.take(), meter.take()) == (3.5, 0)
