"""Requests to stop a run, through the storage: anyone who can write to the output can make one.

A request names its run, so that it cannot stop a later one.
"""

import logging
import threading

from pipeline.dataset.layout import stop_key
from pipeline.errors import ObjectMissing, PipelineError
from pipeline.storage import OutputStore

POLL_S = 5.0  # as often as the lease is renewed

_log = logging.getLogger(__name__)


def ask_to_stop(store: OutputStore, run_id: str) -> None:
    """Request a stop. The run notices within POLL_S. Raises StorageError."""
    store.put(stop_key(run_id), b"")


class StopRequest:
    """A watch for requests to stop this run, in a thread for the length of the `with` block.

    At the end the request is deleted, even if it came too late to be noticed.
    """

    def __init__(self, store: OutputStore, run_id: str, *, poll_s: float = POLL_S) -> None:
        self._store = store
        self._key = stop_key(run_id)
        self._poll_s = poll_s
        self._asked = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stop request", daemon=True)

    @property
    def is_made(self) -> bool:
        return self._asked.is_set()

    def __enter__(self) -> "StopRequest":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        try:
            self._store.delete(self._key)
        except PipelineError as failed:  # it names a run that is over, so it does no harm
            _log.warning("could not remove the request to stop: %s", failed)

    def _look(self) -> None:
        while not self._over.wait(self._poll_s):
            try:
                self._store.get(self._key)
            except ObjectMissing:
                continue
            except PipelineError as error:
                _log.warning("could not look for a request to stop: %s", error)
                continue
            self._asked.set()
            return
