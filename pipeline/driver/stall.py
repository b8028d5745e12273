"""The reaction of a run to a lack of progress."""

import logging
import time

from pipeline.driver.source import TableSource
from pipeline.driver.watchdog import cause_of_stall
from pipeline.errors import Stalled
from pipeline.execution.resources import ActorResources
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore

_STARVED_S = 20.0  # seconds without a row before checking whether actors hold the readers' CPUs

_log = logging.getLogger(__name__)


class StallPolicy:
    """Frees CPUs for readers if actors hold all of them, and ends a run without progress."""

    def __init__(
        self,
        store: OutputStore,
        spec: JobSpec,
        source: TableSource,
        resources: ActorResources,
        *,
        starved_s: float = _STARVED_S,
    ) -> None:
        self._store = store
        self._spec = spec
        self._source = source
        self._resources = resources
        self._starved_s = starved_s
        self._look_again = 0.0
        self.begin_pass()

    def begin_pass(self) -> None:
        self._moved = time.monotonic()
        self._has_rows = False

    def note_rows(self) -> None:
        self._moved = time.monotonic()
        self._has_rows = True

    def note_progress(self) -> None:
        self._moved = time.monotonic()

    def check(self, shards_left: int) -> None:
        """Raise Stalled if no row came for too long."""
        still_s = time.monotonic() - self._moved
        if still_s > self._starved_s:
            self._leave_room_for_readers()
        if still_s > self._spec.stall_timeout_s:
            load = self._source.cluster_load()
            cause = cause_of_stall(
                self._store, self._spec, load, self._resources, has_rows=self._has_rows
            )
            raise Stalled(
                f"{self._store.uri}: no row came for {still_s:.0f} s with {shards_left} shards "
                f"left: {cause}; resolve that, then run the same command again"
            )

    def _leave_room_for_readers(self) -> None:
        """End an actor if actors hold all CPUs.

        After the loss of nodes, Ray may restart the actors on all remaining CPUs. Then no reader
        can run, and the actors wait for rows that must be read again. The next pass repeats the
        work of the ended actor.
        """
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + self._starved_s
        load = self._source.cluster_load()
        if load.actors + load.starting > 1 and load.readers(self._resources) < 1:
            _log.warning(
                "%d actors hold all %g remaining CPUs, so no reader can run: ending one actor",
                load.actors + load.starting + load.others,
                load.cpus,
            )
            self._source.end_actor()
