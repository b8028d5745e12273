"""Processes that Ray starts beside this one: they see its local files and have its rights."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kosmos2_core.errors import first_line
from pipeline.errors import WorkerDied


def options_beside(**limits: int) -> dict[str, Any]:
    """Return Ray's options of a process on this node. It needs no CPU of the readers."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": strategy, **limits}


def answer_to_come(
    answer: Future[Any], *, died: str, take: Callable[[Any], Any] = lambda found: found
) -> Future[Any]:
    """Return what `take` makes of the answer of a call.

    Raises what the call raised; WorkerDied with `died`, where `{}` is the cause.
    """
    found = Future[Any]()

    def settle(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            found.set_result(take(done.result()))
        elif isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
            found.set_exception(error.cause)
        else:
            found.set_exception(WorkerDied(died.format(first_line(error))))

    answer.add_done_callback(settle)
    return found
