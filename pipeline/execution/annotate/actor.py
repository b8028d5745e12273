"""The actor that annotates tables."""

import gc
import logging
import sys

import pyarrow as pa

from pipeline.execution import metrics
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import LoadModel, Note, load_and_report
from pipeline.execution.stored_tables import block_of
from pipeline.execution.worker_log import begin_worker
from pipeline.logs import LogStyle
from pipeline.schema import unexpected_end
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec

# Time the engine's thread waits for Python while another thread builds rows. The default of 5 ms is
# as long as a whole step.
_SWITCH_INTERVAL_S = 0.0005

# Allocations between two collections of Python's garbage collector. Answers hold no cycles, and the
# default of 700 is reached every few images.
_COLLECT_EVERY = 10_000

_log = logging.getLogger(__name__)


class Annotate(TableAnnotator):
    """A table annotator in its own process, which it configures and whose metrics it reports."""

    def __init__(
        self,
        spec: JobSpec,
        known: ResolvedModel | None,
        load: LoadModel,
        note: Note,
        style: LogStyle,
    ) -> None:
        begin_worker(style)
        gc.disable()  # while loading, it takes an eighth of the time and finds little
        switch_threads_often()
        super().__init__(spec, load_and_report(spec, known, load, note))
        collect_garbage_rarely()
        metrics.watch(lambda: self.vitals)
        _log.info("an actor is ready: %s", self.name, extra={"actor": self.name})

    def __call__(self, table: pa.Table) -> pa.Table:
        return block_of(self._annotated(table))

    def _annotated(self, table: pa.Table) -> pa.Table:
        try:
            return super().__call__(table)
        # This is a boundary: Ray would drop the table, and nobody would learn why.
        except Exception as error:  # noqa: BLE001
            _log.exception("a table could not be annotated")
            return self.ends(table, unexpected_end(error))


def switch_threads_often() -> None:
    """Let threads switch often. For a process that only annotates."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def collect_garbage_rarely() -> None:
    """Leave what is loaded out of all later collections, which become rare. For such a process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
    gc.enable()
