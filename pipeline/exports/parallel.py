"""Sections of an export at the same time, each a task of Ray's."""

from collections.abc import Iterable, Iterator

from pipeline.errors import WorkerDied
from pipeline.execution.streams import stream_tasks
from pipeline.exports.sections import ExportContext, Section, Written, export_section


def on_ray(work: ExportContext, sections: Iterable[Section]) -> Iterator[tuple[Section, Written]]:
    """Export them on the cluster; what `sections.in_turn` gives, whichever is first.

    Where one fails the others are ended, and its error says which it was.
    """
    try:
        yield from stream_tasks(export_section, work, sections)
    except WorkerDied as error:
        raise WorkerDied(
            f"{error}; the same command begins it anew, or try it with a smaller --file-size-mb or "
            "--parallel"
        ) from error
