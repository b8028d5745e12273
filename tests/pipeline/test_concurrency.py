"""An iterator that is waited for with a time limit."""

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from threading import Event, active_count, enumerate, get_ident

import pytest

from pipeline.concurrency import TimedIterator

SOON_S = 10.0


def feed_threads() -> int:
    return sum(thread.name == "feed" for thread in enumerate())


def wait_until_gone() -> None:
    deadline = time.monotonic() + SOON_S
    while feed_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("items", [[], [1], list(range(100))])
def test_items_come_in_order(items: list[int]) -> None:
    assert list(TimedIterator(lambda: iter(items)).ticks(SOON_S)) == items


def test_ticks_are_none_while_nothing_comes() -> None:
    is_seen = Event()

    def items() -> Iterator[str]:
        yield "first"
        is_seen.wait(SOON_S)
        yield "second"

    found = []
    for item in TimedIterator(items).ticks(0.01):
        found.append(item)
        if found.count(None) == 3:
            is_seen.set()
    assert [item for item in found if item] == ["first", "second"]
    assert found.count(None) >= 3


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_is_raised_where_the_items_are_taken(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise error

    ticks = TimedIterator(items).ticks(SOON_S)
    assert next(ticks) == 1
    with pytest.raises(type(error)) as raised:
        next(ticks)
    assert raised.value is error


def test_an_error_before_the_first_item_is_raised_too() -> None:
    def items() -> Iterator[int]:
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        next(TimedIterator(items).ticks(SOON_S))


def test_items_are_made_in_a_thread_of_their_own() -> None:
    [thread] = TimedIterator(lambda: iter([get_ident()])).ticks(SOON_S)
    assert thread != get_ident()


def test_only_a_few_items_are_made_ahead() -> None:
    made = count()
    feed = TimedIterator(lambda: iter(lambda: next(made), None))
    ticks = feed.ticks(SOON_S)
    assert next(ticks) == 0
    time.sleep(0.1)
    assert 0 < feed.waiting < next(made) < 10
    feed.stop()
    wait_until_gone()


def test_stop_lets_the_iterator_and_its_thread_go() -> None:
    is_closed = Event()

    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            is_closed.set()

    feed = TimedIterator(items)
    next(feed.ticks(SOON_S))
    before = active_count()
    feed.stop()
    assert is_closed.wait(SOON_S)
    wait_until_gone()
    assert active_count() < before


LEFT = """
import time
from pipeline.concurrency import TimedIterator

def items():
    try:
        yield 1
        time.sleep(0.5)
        yield 2
    finally:
        print("let go")

iterator = TimedIterator(items)
next(iterator.ticks(10))
iterator.stop()
"""


def test_a_process_ends_after_its_stopped_iterators() -> None:
    """Else their threads would wait within Ray while it is shut down."""
    done = subprocess.run([sys.executable, "-c", LEFT], check=True, capture_output=True, text=True)
    assert done.stdout == "let go\n"
