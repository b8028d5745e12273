"""Sections of an export at the same time, each a task of Ray's."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import PipelineError, WorkerDied, first_line
from pipeline.execution.cluster import connect
from pipeline.exports.sections import ExportContext, Section, Written, export_section

_RETRIES = 3  # of a task whose process or node died; an error of its own is not tried again


def on_ray(work: ExportContext, sections: Iterable[Section]) -> Iterator[tuple[Section, Written]]:
    """Export them on the cluster; what `sections.in_turn` gives, whichever is first.

    Where one fails the others are ended, and its error says which it was.
    """
    connect()
    task = ray.remote(export_section).options(
        num_cpus=1, num_returns="streaming", max_retries=_RETRIES
    )
    shared = ray.put(work)
    running = {task.remote(shared, section): section for section in sections}
    try:
        while running:
            [stream] = cast(list[Any], ray.wait(list(running))[0])
            answer = next(stream, None)
            if answer is None:
                del running[stream]
            else:
                yield running[stream], _written(answer, running[stream])
    finally:
        for stream in running:
            ray.cancel(stream, force=True)


def _written(answer: "ray.ObjectRef[Written]", section: Section) -> Written:
    """Raises PipelineError."""
    try:
        written: Written = ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise type(error.cause)(f"section {section}: {error.cause}") from error
        raise
    except RayError as error:
        raise WorkerDied(
            f"section {section}: its process died {_RETRIES + 1} times, for want of memory maybe "
            f"({first_line(error)}); the same command begins it anew, or try it with a "
            "smaller --file-size-mb or --parallel"
        ) from error
    return written
