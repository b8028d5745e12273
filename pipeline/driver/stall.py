"""What a run does while nothing moves."""

import logging
import time

from pipeline.dataset.dataset import StoredDataset
from pipeline.driver.source import TableSource
from pipeline.driver.watchdog import cause_of_stall
from pipeline.errors import Stalled
from pipeline.execution.resources import ActorResources
from pipeline.spec.job import JobSpec

_STARVED_S = 20.0  # without a row, before it is looked whether actors take the readers' CPUs

_log = logging.getLogger(__name__)


class StallPolicy:
    """Makes room for readers where actors took all of it, and ends a run that stands still."""

    def __init__(
        self,
        dataset: StoredDataset,
        spec: JobSpec,
        source: TableSource,
        resources: ActorResources,
        *,
        starved_s: float = _STARVED_S,
    ) -> None:
        self._store = dataset.store
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

    def note_outcome(self) -> None:
        self._moved = time.monotonic()

    def check(self, shards_left: int) -> None:
        """Raises Stalled."""
        still_s = time.monotonic() - self._moved
        if still_s > self._starved_s:
            self._leave_room_for_readers()
        if still_s > self._spec.stall_timeout_s:
            load = self._source.cluster_load()
            cause = cause_of_stall(
                self._store, self._spec, load, self._resources, has_rows=self._has_rows
            )
            raise Stalled(
                f"no row came for {still_s:.0f} s with {shards_left} shards left: {cause}; mend "
                "that, then run the same command again"
            )

    def _leave_room_for_readers(self) -> None:
        """A cluster that lost nodes may have just the CPUs of the actors, which Ray starts again
        there: no reader runs any more, and what the actors wait for may have to be read again. What
        the actor that goes had in work, the next pass does.
        """
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + self._starved_s
        load = self._source.cluster_load()
        actors = load.actors + load.starting
        if actors > 1 and load.cpus - actors * self._resources.num_cpus < 1:
            _log.warning(
                "%d actors take all of the %g CPUs that are left, and nothing is read: one ends",
                actors,
                load.cpus,
            )
            self._source.end_actor()
