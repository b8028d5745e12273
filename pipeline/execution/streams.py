"""Generators that run as Ray tasks, several at a time."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, cast

import ray
from ray.exceptions import RayError, RayTaskError

from kosmos2_core.errors import first_line
from pipeline.errors import PipelineError, WorkerDied
from pipeline.execution.cluster import connect

_RETRIES = 3  # retries of a task whose process or node died; its own errors are not retried

_Shared = TypeVar("_Shared")
_Part = TypeVar("_Part")
_Answer = TypeVar("_Answer")


def stream_tasks(
    call: Callable[[_Shared, _Part], Generator[_Answer, None, None]],
    shared: _Shared,
    parts: Iterable[_Part],
) -> Iterator[tuple[_Part, _Answer]]:
    """Run `call(shared, part)` for each part on the cluster; yield the answers as they come.

    A failure ends the other tasks. Raises its PipelineError, naming the part; WorkerDied if its
    process died too often; SpecError if there is no cluster.
    """
    connect()
    task = ray.remote(call).options(num_cpus=1, num_returns="streaming", max_retries=_RETRIES)
    stored = ray.put(shared)
    running = {task.remote(stored, part): part for part in parts}
    try:
        while running:
            [stream] = cast(list[Any], ray.wait(list(running))[0])
            answer = next(stream, None)
            if answer is None:
                del running[stream]
            else:
                yield running[stream], _answer(answer, running[stream])
    finally:
        for stream in running:
            # Not by force: a task whose process is killed may be retried and then completed
            # twice, which aborts this process (seen with Ray 2.60).
            ray.cancel(stream, force=False)


def _answer(answer: "ray.ObjectRef[_Answer]", part: object) -> _Answer:
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise type(error.cause)(f"{part}: {error.cause}") from error
        raise
    except RayError as error:
        raise WorkerDied(
            f"{part}: its process died {_RETRIES + 1} times ({first_line(error)}); check "
            "the memory of the nodes, then run the same command again"
        ) from error
