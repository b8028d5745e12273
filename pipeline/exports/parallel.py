"""Sections of an export that run at the same time, each as a Ray task."""

from collections.abc import Iterable, Iterator

from pipeline.errors import WorkerDied
from pipeline.execution.streams import stream_tasks
from pipeline.exports.sections import ExportContext, Section, Written, export_section


def on_ray(work: ExportContext, sections: Iterable[Section]) -> Iterator[tuple[Section, Written]]:
    """Export the sections on the cluster; yield what `sections.in_turn` yields, in any order.

    A failure ends the other sections. Its error names the section.
    """
    try:
        yield from stream_tasks(export_section, work, sections)
    except WorkerDied as error:
        raise WorkerDied(
            f"{error}, which starts again; or use a smaller --file-size-mb or --parallel"
        ) from error
