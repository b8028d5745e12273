"""A process beside this one that Ray starts, with one object that answers questions."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kosmos2_core.errors import first_line
from pipeline.errors import WorkerDied
from pipeline.execution.cluster import connect
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

    It sees the local files and has the rights of this process. Ray does not restart it, and ends
    with it all that it started.
    """

    def __init__(self, make: Callable[[], Respondent]) -> None:
        here = ray.get_runtime_context().get_node_id()
        options = {
            "num_cpus": 0,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
        }
        self._actor: Any = ray.remote(PartDriver).options(**options).remote(style_here(), make)

    def ask(self, question: object) -> "Future[Any]":
        found = Future[Any]()
        answer = self._actor.answer.remote(question)
        answer.future().add_done_callback(lambda done: _resolve(found, done))
        return found

    def end(self) -> None:
        ray.kill(self._actor)


def _resolve(found: "Future[Any]", answer: "Future[Any]") -> None:
    error = answer.exception()
    if error is None:
        found.set_result(answer.result())
    elif isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
        found.set_exception(error.cause)
    else:
        found.set_exception(WorkerDied(f"its process died ({first_line(error)})"))
