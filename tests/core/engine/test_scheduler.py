"""Who has which slot."""

import random
import subprocess
import sys

import pytest

from kosmos2_core.engine.scheduler import Move, Scheduler


def scheduler(slots, live="", waiting=""):
    found = Scheduler(slots)
    found.queue(live)
    found.admit(kind=lambda sequence: None)
    found.queue(waiting)
    return found


def live(schedule):
    return "".join(schedule.live)


def any_kind(sequence):
    return None


@pytest.mark.parametrize(
    ("before", "waiting", "admitted", "after"),
    [
        ("", "abc", "abc", "abc"),
        ("", "abcdef", "abcd", "abcd"),
        ("abc", "de", "d", "abcd"),
        ("abcd", "e", "", "abcd"),
        ("ab", "", "", "ab"),
    ],
)
def test_the_next_in_the_queue_get_the_slots_behind_the_live(before, waiting, admitted, after):
    schedule = scheduler(4, before, waiting)
    assert "".join(schedule.admit(any_kind)) == admitted
    assert live(schedule) == after
    assert schedule.free == 4 - len(after)
    assert schedule.waiting == len(waiting) - len(admitted)


def test_only_neighbours_of_one_kind_are_admitted_together():
    schedule = scheduler(8, waiting="abCdE")
    assert ["".join(schedule.admit(str.isupper)) for _ in range(4)] == ["ab", "C", "d", "E"]


def test_the_urgent_go_first_in_their_own_order():
    schedule = scheduler(4, waiting="cd")
    schedule.queue_first("ab")
    assert "".join(schedule.admit(any_kind)) == "abcd"


@pytest.mark.parametrize(
    ("freed", "moves", "after"),
    [
        ([], [], "abcde"),
        ([4], [], "abcd"),
        ([0], [(4, 0)], "ebcd"),
        ([1, 3], [(4, 1)], "aec"),
        ([0, 1], [(3, 0), (4, 1)], "dec"),
        ([2, 3, 4], [], "ab"),
        ([0, 1, 2, 3], [(4, 0)], "e"),
        ([0, 1, 2, 3, 4], [], ""),
    ],
)
def test_the_last_move_into_the_holes(freed, moves, after):
    schedule = scheduler(5, "abcde")
    assert schedule.release(freed) == [Move(slot=slot, to=to) for slot, to in moves]
    assert live(schedule) == after


@pytest.mark.parametrize("seed", range(20))
def test_moves_keep_every_sequence_with_what_is_kept_for_it(seed):
    """A memory that only follows the moves holds what the live sequences left in it."""
    choose = random.Random(seed)
    schedule, memory, done = scheduler(6, waiting=range(100)), [None] * 6, []
    while schedule.live or schedule.waiting:
        schedule.admit(any_kind)
        memory[: len(schedule.live)] = schedule.live
        freed = choose.sample(range(len(schedule.live)), choose.randint(1, len(schedule.live)))
        done += [schedule.live[slot] for slot in freed]
        for move in schedule.release(freed):
            memory[move.to] = memory[move.slot]
        assert memory[: len(schedule.live)] == list(schedule.live)
    assert sorted(done) == list(range(100))


def test_scheduling_needs_no_torch():
    code = "import sys, kosmos2_core.engine.scheduler; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
