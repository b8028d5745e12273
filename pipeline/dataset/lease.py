"""The lease of a run that writes to an output.

It avoids wasted work; correctness does not depend on it. The lease is one small object, renewed by
compare-and-swap every few seconds. Its body carries the run's progress for `status`. A run that
finds a lease does not trust clocks: it watches whether the object changes.

When a lease ends, the time of actors that no commit stands for is written to
`actor_time/<run_id>.json`: by the run, or by the one that takes over the lease of a dead run. So it
is right to within one renewal.
"""

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from pipeline.costs.actor_time import ActorTime
from pipeline.dataset.layout import actor_time_key
from pipeline.errors import AlreadyExists, Conflict, LeaseHeld, ObjectMissing, StorageError
from pipeline.faults import fault
from pipeline.progress import Progress
from pipeline.storage import Fetched, OutputStore

RENEW_S = 5.0
TAKEOVER_S = 30.0
_POLL_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, described so that another one on this machine can tell whether it is alive."""

    run_id: str
    host: str
    machine: str  # this boot of this machine, and this container
    pid: int
    process_started: float  # pids are reused

    @classmethod
    def this_process(cls) -> "Owner":
        pid = os.getpid()
        return cls(
            run_id=uuid.uuid4().hex[:12],
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            process_started=_started(psutil.Process(pid)),
        )

    @property
    def name(self) -> str:
        return f"{self.host}, pid {self.pid} (run {self.run_id})"

    def is_dead_here(self) -> bool:
        """Return True only if the owner ran on this machine and is certainly gone."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            # A zombie was killed. In a container, its exit status may never be collected.
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            return is_zombie or _started(process) != self.process_started
        except psutil.NoSuchProcess:
            return True


def _started(process: psutil.Process) -> float:
    """Return the start in seconds since boot, in ticks of 10 ms: the wall clock may be set."""
    since_boot: float = process.create_time() - psutil.boot_time()
    return round(since_boot, 2)


def _machine() -> str:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()}/{os.readlink(namespace)}"
    return f"{socket.gethostname()}/{psutil.boot_time()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """The body of the object. `beat` changes at every renewal, so the ETag changes too."""

    owner: Owner
    beat: int
    progress: Progress | None = None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "LeaseState | None":
        """Parse a lease; return None if another version wrote it with other fields."""
        try:
            body = json.loads(data)
            progress = body["progress"]
            return cls(
                owner=Owner(**body["owner"]),
                beat=body["beat"],
                progress=Progress.from_dict(progress) if progress else None,
            )
        except (ValueError, TypeError, KeyError):
            return None


def read_lease(store: OutputStore, key: str) -> LeaseState | None:
    try:
        return LeaseState.from_json(store.get(key).data)
    except ObjectMissing:
        return None


class Lease:
    """A lease held from `acquire` to `release`, renewed by a separate thread.

    `is_lost` becomes True if another run took the lease over. The holder checks it regularly and
    stops.
    """

    def __init__(
        self,
        store: OutputStore,
        *,
        key: str,
        progress: Callable[[], Progress | None] = lambda: None,
        renew_s: float = RENEW_S,
        takeover_s: float = TAKEOVER_S,
    ) -> None:
        self._store = store
        self._key = key
        self._progress = progress
        self._renew_s = renew_s
        self._takeover_s = takeover_s
        self._state = LeaseState(owner=Owner.this_process(), beat=0)
        self._etag = ""
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @property
    def run_id(self) -> str:
        return self._state.owner.run_id

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    def acquire(self) -> None:
        """Acquire the lease. Raises LeaseHeld, naming the owner, if a live run holds it.

        Waits up to `takeover_s` to see whether a holder on another machine is alive.
        """
        while not self._try_acquire():
            pass
        self._thread.start()

    def release(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(StorageError):
            self._leave_open_time(self.run_id, self._progress())
        if self._etag and not self.is_lost:
            with suppress(Conflict, ObjectMissing, StorageError):
                self._store.delete(self._key, self._etag)

    def _try_acquire(self) -> bool:
        """Try once; return False if the lease changed hands meanwhile."""
        body = self._state.to_json()
        try:
            self._etag = self._store.create(self._key, body)
            return True
        except AlreadyExists:
            pass
        try:
            abandoned = self._abandoned()
            if (former := LeaseState.from_json(abandoned.data)) is not None:
                self._leave_open_time(former.owner.run_id, former.progress)
            self._etag = self._store.replace(self._key, body, abandoned.etag)
            return True
        except (Conflict, ObjectMissing):
            return False

    def _leave_open_time(self, run_id: str, progress: Progress | None) -> None:
        has_some = progress is not None and progress.open_time != ActorTime()
        if progress is not None and has_some and re.fullmatch("[0-9a-f]{12}", run_id):
            body = json.dumps(asdict(progress.open_time)).encode()
            self._store.put(actor_time_key(run_id), body)

    def _abandoned(self) -> Fetched:
        """Return the lease of an owner that is gone. Raises LeaseHeld, ObjectMissing."""
        held = self._store.get(self._key)
        state = LeaseState.from_json(held.data)
        if state is not None and state.owner.is_dead_here():
            return held
        deadline = time.monotonic() + self._takeover_s
        while time.monotonic() < deadline:
            time.sleep(min(_POLL_S, self._takeover_s / 10))
            if self._store.get(self._key).etag != held.etag:
                who = state.owner.name if state else "one of another version"
                raise LeaseHeld(
                    f"{self._store.uri} is in use: another run is writing to it: {who}; wait until "
                    f"it ends, or stop it with `kosmos2 stop {self._store.uri}`"
                )
        return held

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_s):
            try:
                self._beat()
            except (Conflict, ObjectMissing):
                self._lost.set()
                return
            # This is a boundary: if this thread ended silently, a live run would be taken over.
            except Exception as error:  # noqa: BLE001
                # The next renewal tries again. Until then another run may take the lease over.
                _log.warning("could not renew the lease: %s: %s", type(error).__name__, error)

    def _beat(self) -> None:
        fault("lease.renew")
        self._state = replace(self._state, beat=self._state.beat + 1, progress=self._progress())
        self._etag = self._store.replace(self._key, self._state.to_json(), self._etag)
