"""A process beside this one that Ray starts, with one object that answers questions."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import ray

from pipeline.execution.cluster import connect
from pipeline.execution.parts.beside import answer_to_come, options_beside
from pipeline.execution.worker_log import begin_worker
from pipeline.logs import LogStyle, style_here


class Respondent(Protocol):
    """An object that answers questions, one at a time. Both may be of any type."""

    def answer(self, question: Any) -> Any: ...


class AskedProcess(Protocol):
    """A process that holds a respondent."""

    def ask(self, question: object) -> "Future[Any]":
        """Return the answer to come. It raises what `answer` raised; WorkerDied."""

    def end(self) -> None:
        """End the process, with all tasks and actors that it started."""


class PartDriver:
    """A respondent in a process of its own."""

    def __init__(self, style: LogStyle, make: Callable[[], Respondent]) -> None:
        begin_worker(style)
        connect()
        self._respondent = make()

    def answer(self, question: object) -> object:
        return self._respondent.answer(question)


class RayProcess:
    """A `PartDriver` on this node, as a Ray actor.

    Ray does not restart it, and ends with it all that it started.
    """

    def __init__(self, make: Callable[[], Respondent]) -> None:
        process = ray.remote(PartDriver).options(**options_beside(max_restarts=0))
        self._actor: Any = process.remote(style_here(), make)

    def ask(self, question: object) -> "Future[Any]":
        answer = self._actor.answer.remote(question).future()
        return answer_to_come(answer, died="its process died ({})")

    def end(self) -> None:
        ray.kill(self._actor)
