"""Calls from several threads go through one engine as one stream."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from kosmos2_core.engine import shared_engine as sharing
from kosmos2_core.engine.requests import Completion, Request
from kosmos2_core.engine.shared_engine import SharedEngine, Usage
from kosmos2_core.errors import EngineFailed, InvalidRequest
from kosmos2_core.grounding.scores import TokenScores
from tests.support.engine_models import (
    count_steps,
    engine_of,
    pixels,
    prompt_of,
    requests_of,
    shapes,
)

CALLS, IMAGES = 4, 4
SOON_S = 60


def blocks():
    """What each call brings; the ids of all calls are equal."""
    images = pixels(CALLS * IMAGES).reshape(CALLS, IMAGES, 3, 224, 224)
    return [requests_of(block, prompt_of(shapes)) for block in images]


class Held:
    """An engine that begins when it is let go."""

    def __init__(self, engine):
        self.engine, self.is_free = engine, threading.Event()

    def generate(self, requests):
        self.is_free.wait(SOON_S)
        yield from self.engine.generate(requests)


def wait_until(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def all_at_once(engine, calls):
    """The completions of each call, where all wait, in order, before the engine begins."""
    held = Held(engine)
    shared = SharedEngine(held)
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        for number, call in enumerate(calls, 1):
            futures.append(pool.submit(lambda call=call: list(shared.generate(call))))
            wait_until(lambda number=number: shared._inbox.qsize() == number)
        held.is_free.set()
        return [future.result(SOON_S) for future in futures]


def alone(engine, calls):
    return [list(engine.generate(call)) for call in calls]


def by_id(completions):
    """As texts, which are exact and equal where a score is NaN."""
    found = {(c.request_id, c.index): repr(c) for c in completions}
    assert len(found) == len(completions)
    return found


@pytest.fixture
def steps(monkeypatch):
    """The rows of every decode step."""
    return count_steps(monkeypatch)


def test_each_call_gets_what_it_would_get_alone():
    """Tokens and scores, to the last bit: neighbours change nothing in float32."""
    engine = engine_of(shapes())
    for shared, apart in zip(all_at_once(engine, blocks()), alone(engine, blocks()), strict=True):
        assert by_id(shared) == by_id(apart)


def test_the_engine_does_not_drain_between_calls(steps):
    engine = engine_of(shapes())
    stream = [request for block in blocks() for request in block]
    alone(engine, [[replace(request, id=number) for number, request in enumerate(stream)]])
    of_one_stream = steps.copy()
    steps.clear()
    all_at_once(engine, blocks())
    shared = steps.copy()
    steps.clear()
    alone(engine, blocks())
    assert shared == of_one_stream
    assert len(shared) < len(steps)


def test_calls_from_many_threads_each_get_all_their_answers():
    shared, calls = SharedEngine(engine_of(shapes())), blocks() * 2
    expected = [by_id(answers) for answers in alone(engine_of(shapes()), blocks())] * 2
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda call: by_id(list(shared.generate(call))), calls))
    assert found == expected


def test_a_call_without_requests_ends():
    assert list(SharedEngine(engine_of(shapes())).generate([])) == []


def test_a_call_given_up_costs_the_others_nothing():
    shared, calls = SharedEngine(engine_of(shapes())), blocks()
    next(shared.generate(calls[0]))
    assert len(list(shared.generate(calls[1]))) == IMAGES


def test_a_bad_request_is_an_error_of_its_own():
    calls = blocks()
    calls[1][2] = replace(calls[1][2], pixels=np.zeros((3, 8, 8), np.uint8))
    calls[2][0] = replace(calls[2][0], prompts=())
    found = all_at_once(engine_of(shapes()), calls)
    failed = {(n, c.request_id) for n, call in enumerate(found) for c in call if c.error}
    assert failed == {(1, 2), (2, 0)}
    assert all(isinstance(c.error, InvalidRequest) for call in found for c in call if c.error)
    assert [len(call) for call in found] == [IMAGES] * CALLS


def test_follow_ups_of_all_calls_are_answered_to_their_callers():
    told = []

    def follow_up(completions):
        told.append([completion.request_id for completion in completions])
        again = prompt_of(shapes)
        answer = completions[0].token_ids[:4]
        return (replace(again, task="more", ids=again.ids + answer),) * (
            completions[0].request_id % 3
        )

    calls = [[replace(request, follow_up=follow_up) for request in call] for call in blocks()]
    found = all_at_once(engine_of(shapes()), calls)
    assert sorted(told) == sorted([number] for number in range(IMAGES) for _ in range(CALLS))
    for call, asked in zip(found, calls, strict=True):
        assert sorted((c.request_id, c.index) for c in call) == [
            (number, index) for number in range(IMAGES) for index in range(1 + number % 3)
        ]
        answers = {(c.request_id, c.index): c.token_ids for c in call}
        for (number, index), tokens in answers.items():
            assert index == 0 or answers[number, 0] == answers[number, 0][:4] + tokens
        assert len(asked) == IMAGES


class Broken(RuntimeError):
    pass


class Breaking:
    """Answers some requests, then breaks down."""

    def __init__(self, after):
        self.after = after

    def generate(self, requests):
        for number, request in enumerate(requests):
            if number == self.after:
                raise Broken("CUDA error: an illegal memory access was encountered")
            yield answer(request)


def answer(request):
    return Completion(
        request_id=request.id,
        index=0,
        task="",
        token_ids=(),
        scores=TokenScores(),
        finish_reason="eos",
        sender=request.sender,
    )


@pytest.mark.parametrize("after", [0, IMAGES + 1])
def test_an_engine_that_breaks_down_fails_every_call_now_and_later(after):
    calls, held = blocks(), Held(Breaking(after))
    shared = SharedEngine(held)
    with ThreadPoolExecutor(CALLS) as pool:
        futures = [pool.submit(lambda call=call: list(shared.generate(call))) for call in calls]
        wait_until(lambda: shared._inbox.qsize() == CALLS)
        held.is_free.set()
        errors = [future.exception(SOON_S) for future in futures]
    failed = [error for error in errors if error is not None]
    assert len(failed) == CALLS - after // IMAGES
    for error in failed:
        assert isinstance(error, EngineFailed)
        assert isinstance(error.__cause__, Broken)
    with pytest.raises(EngineFailed, match=r"illegal memory access.*run `kosmos2 check`"):
        next(shared.generate(calls[0]))


class Asking:
    """Notes what it is given; answers a request after it was told three times that none came."""

    def __init__(self):
        self.given, self.asked = [], 0

    def generate(self, requests):
        requests = iter(requests)
        while True:
            self.asked += 1
            self.given.append(next(requests))
            if self.given[-3:] == [None] * 3:
                yield answer(self.given[-4])


def test_the_engine_waits_only_when_it_has_nothing_to_do():
    engine = Asking()
    shared = SharedEngine(engine)
    for call in range(2):
        wait_until(lambda call=call: engine.asked == 4 * call + 1)  # and waits from now on
        assert len(engine.given) == 4 * call
        assert len(list(shared.generate(blocks()[call][:1]))) == 1
    assert [isinstance(given, Request) for given in engine.given] == [True, *[False] * 3] * 2


def test_usage_tells_computing_from_waiting(monkeypatch):
    now = 100.0
    monkeypatch.setattr(sharing.time, "perf_counter", lambda: now)

    class Slow:
        def generate(self, requests):
            nonlocal now
            for request in requests:
                now += 1.0
                yield answer(request)

    shared, (call, *_) = SharedEngine(Slow()), blocks()
    assert shared.usage == Usage(busy_s=0, span_s=0)
    list(shared.generate(call[:2]))
    now += 3.0
    list(shared.generate(call[:1]))
    assert shared.usage == Usage(busy_s=3, span_s=6)
