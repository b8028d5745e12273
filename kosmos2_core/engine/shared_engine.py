"""One run of an engine for callers in several threads, which stays full across their calls."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kosmos2_core.engine.requests import Completion, Generates, Prompt, Request
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import EngineFailed, EngineOutOfMemory

_ANSWERS_AT_ONCE = 16  # to a caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """From the first request to the last completion, `span_s`, the engine computed for `busy_s`.

    The rest it waited for requests, or for its completions to be taken.
    """

    busy_s: float = 0.0
    span_s: float = 0.0


class SharedEngine:
    """A thread of its own runs the engine; requests of all calls go through it in one stream.

    While one call takes its last answers, the slots that it leaves go to the next call's
    requests: an engine never drains as long as enough calls wait.
    """

    def __init__(self, engine: Generates) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[list[Request]] = queue.SimpleQueue()
        self._under_way = 0  # prompts that the engine has and has not answered
        self._clock = _Clock()
        self._calls: set[_Call] = set()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()  # of the two above
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Answer as `Engine.generate`, from any thread, but read all `requests` at once.

        Follow-ups run in the engine's thread. Raises EngineFailed if the engine failed, now or
        earlier: it never recovers.
        """
        own = [request for request in requests if request is not None]
        call = _Call(expected=sum(map(_answers_to, own)))
        with self._lock:
            self._check()
            self._calls.add(call)
        try:
            self._inbox.put([self._sent_by(call, request) for request in own])
            received = 0
            while received < call.expected:
                answers = call.inbox.get()
                if answers is None:
                    self._check()
                else:
                    received += len(answers)
                    yield from answers
        finally:
            with self._lock:
                self._calls.discard(call)

    @property
    def usage(self) -> Usage:
        """The time that the engine computed, from its start to now."""
        return self._clock.usage

    @property
    def vitals(self) -> Vitals:
        """The engine's vitals; all prompts wait that were asked for and have no slot."""
        vitals = self._engine.vitals
        with self._lock:
            unanswered = sum(call.expected - call.answered for call in self._calls)
        return replace(vitals, waiting=max(unanswered - vitals.live, 0))

    def _sent_by(self, call: "_Call", request: Request) -> Request:
        follow_up = request.follow_up

        def counted(completions: tuple[Completion, ...]) -> tuple[Prompt, ...]:
            assert follow_up is not None
            prompts = follow_up(completions)
            # Before the last of these completions goes to the caller, who counts.
            call.expected += len(prompts)
            self._under_way += len(prompts)
            return prompts

        return Request(
            id=request.id,
            pixels=request.pixels,
            prompts=request.prompts,
            follow_up=counted if follow_up else None,
            sender=call,
        )

    def _check(self) -> None:
        if self._failure is not None:
            if isinstance(self._failure, EngineOutOfMemory):
                raise EngineOutOfMemory(str(self._failure)) from self._failure
            reason = f"{type(self._failure).__name__}: {self._failure}"
            raise EngineFailed(
                f"the engine stopped after an error and answers nothing more ({reason}); start a "
                "new process, and run `kosmos2 check` on this machine if it happens again"
            ) from self._failure

    # In the engine's thread

    def _run(self) -> None:
        try:
            for completion in self._engine.generate(self._requests()):
                self._clock.stop()
                self._under_way -= 1
                assert isinstance(completion.sender, _Call)
                completion.sender.add(completion)
                self._clock.start()
        # A boundary: whatever ends the engine is raised again in the callers' threads.
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _requests(self) -> Iterator[Request | None]:
        while True:
            for request in self._next():
                self._clock.start()
                yield request
                self._clock.stop()

    def _next(self) -> Sequence[Request | None]:
        """Waits only while the engine has nothing to do; otherwise None says that none came."""
        try:
            requests = self._inbox.get(block=not self._under_way)
        except queue.Empty:
            return [None]
        self._under_way += sum(map(_answers_to, requests))
        return requests

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = error
            for call in self._calls:
                call.inbox.put(None)


class _Call:
    """One caller's answers, of which so many are `expected` as yet, and `answered` have come.

    They go to the caller's `inbox` some at a time: each wakes its thread, which then takes Python
    from the engine's. None wakes it when the engine has failed.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.answered = 0
        self.inbox: queue.SimpleQueue[list[Completion] | None] = queue.SimpleQueue()
        self._answers: list[Completion] = []

    def add(self, completion: Completion) -> None:
        self.answered += 1
        self._answers.append(completion)
        if self.answered == self.expected or len(self._answers) == _ANSWERS_AT_ONCE:
            self.inbox.put(self._answers)
            self._answers = []


def _answers_to(request: Request) -> int:
    return max(len(request.prompts), 1)  # no prompts: one error


class _Clock:
    """Runs while the engine computes."""

    def __init__(self) -> None:
        self._times = (0.0, 0.0)  # busy and span, replaced at once: any thread may read them
        self._first: float | None = None
        self._started: float | None = None

    @property
    def usage(self) -> Usage:
        busy_s, span_s = self._times
        return Usage(busy_s=busy_s, span_s=span_s)

    def start(self) -> None:
        self._started = time.perf_counter()
        self._first = self._first or self._started

    def stop(self) -> None:
        if self._started is None or self._first is None:
            return
        now = time.perf_counter()
        self._times = self._times[0] + now - self._started, now - self._first
        self._started = None
