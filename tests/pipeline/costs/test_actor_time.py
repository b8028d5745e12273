"""The clock of a run: how long its actors were held, and which commit stands for it."""

from dataclasses import asdict

import pytest

from pipeline.costs import actor_time as counting
from pipeline.costs.actor_time import ActorClock, ActorTime, total_time


class Now:
    """The time, as a test sets it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    found = Now()
    monkeypatch.setattr(counting.time, "monotonic", found)
    return found


def clock(now: Now, *, gpus: float) -> ActorClock:
    now.seconds = 100.0
    return ActorClock(gpus_per_actor=gpus, _looked=100.0)


def test_actors_are_held_from_look_to_look(now: Now) -> None:
    of = clock(now, gpus=0.5)
    for seconds, actors in [(101, 2), (105, 4), (107, 1), (110, 0)]:  # the larger number counts
        now.seconds = seconds
        of.look(actors)
    for actor, busy_s in [("a", 2.0), ("b", 1.0), ("a", 5.0), ("a", 4.0)]:  # one came late
        of.note_busy(actor, busy_s)
    assert of.total == ActorTime(
        held_s=1 * 2 + 4 * 4 + 2 * 4 + 3 * 1, busy_s=6.0, gpu_held_s=14.5, gpu_busy_s=3.0
    )


def test_commits_share_all_time_since_the_ones_before(now: Now) -> None:
    of = clock(now, gpus=1)
    of.look(2)
    now.seconds = 110.0
    assert [each.held_s for each in of.share([1, 3])] == [5.0, 15.0]
    now.seconds = 111.0
    [last] = of.share([7])
    assert last.held_s == 2.0
    assert of.open == ActorTime()
    assert of.total.held_s == 22.0


def test_the_time_of_a_commit_that_failed_goes_to_the_next(now: Now) -> None:
    of = clock(now, gpus=1)
    of.look(1)
    now.seconds = 104.0
    [given] = of.share([1])
    of.take_back(given)
    now.seconds = 106.0
    [again] = of.share([1])
    assert again.gpu_held_s == 6.0


def test_times_add_up_and_are_stored() -> None:
    one = ActorTime.of(held_s=2.0, busy_s=1.0, gpus=4)
    assert total_time([one, one]) == ActorTime.of(held_s=4.0, busy_s=2.0, gpus=4)
    assert ActorTime.from_dict(asdict(one)) == one
    with pytest.raises(LookupError):
        ActorTime.from_dict({"held_s": 1.0})
