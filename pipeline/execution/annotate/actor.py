"""The actor that annotates."""

import logging
import sys

from pipeline.execution import metrics
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import LoadModel
from pipeline.execution.worker_log import begin_worker
from pipeline.logs import LogStyle
from pipeline.spec.identity import Identity
from pipeline.spec.job import JobSpec

# How long the engine's thread waits for Python while another builds rows; by default 5 ms, as
# long as a whole step.
_SWITCH_INTERVAL_S = 0.0005

_log = logging.getLogger(__name__)


class Annotate(TableAnnotator):
    """A table annotator in a process of its own, which it sets up and reports of."""

    def __init__(self, spec: JobSpec, identity: Identity, load: LoadModel, style: LogStyle) -> None:
        begin_worker(style)
        switch_threads_often()
        super().__init__(spec, identity, load)
        metrics.watch(lambda: self.vitals)
        _log.info("an actor is ready: %s", self.name, extra={"actor": self.name})


def switch_threads_often() -> None:
    """In this process: for one that does nothing but annotate."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
