"""One sample at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from pipeline.errors import WorkerDied
from pipeline.execution.annotate.isolation import Room, alone_with
from tests.support.annotators import SetOfMarks

SOON_S = 10.0


def test_who_is_alone_is_alone() -> None:
    room, inside, most, most_beside = Room(), [], [], []

    def visit(number: int) -> None:
        is_alone = number % 3 == 0
        with room.alone() if is_alone else room.shared():
            inside.append(number)
            (most_beside if is_alone else most).append(len(inside))
            threading.Event().wait(0.002)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(90)))
    assert set(most_beside) == {1}
    assert max(most) > 1


def test_who_waits_to_be_alone_is_not_kept_waiting_by_newcomers() -> None:
    room, order = Room(), []
    here, leave = threading.Event(), threading.Event()

    def first() -> None:
        with room.shared():
            here.set()
            assert leave.wait(SOON_S)

    def alone() -> None:
        with room.alone():
            order.append("alone")

    def newcomer() -> None:
        with room.shared():
            order.append("newcomer")

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(first)]
        assert here.wait(SOON_S)
        done.append(pool.submit(alone))
        while not room._waiting:
            pass
        done.append(pool.submit(newcomer))
        leave.set()
        for one in done:
            one.result(SOON_S)
    assert order == ["alone", "newcomer"]


def test_work_that_ends_leaves_no_mark() -> None:
    marks = SetOfMarks()
    assert alone_with(Room(), marks, "a", lambda: sorted(marks)) == ["a"]
    assert marks == set()


def test_what_a_process_died_of_is_not_done_again() -> None:
    class Death(BaseException):
        pass

    def die() -> None:
        raise Death

    marks, calls = SetOfMarks(), count()
    with pytest.raises(Death):
        alone_with(Room(), marks, "a", die)
    for _ in range(2):
        assert isinstance(alone_with(Room(), marks, "a", lambda: next(calls)), WorkerDied)
    assert alone_with(Room(), marks, "b", lambda: next(calls)) == 0
    assert marks == {"a"}
