"""CPU time of this process and of all that it started, by what they do."""

import time
from collections import defaultdict

import psutil

_ROLES = {"MapBatches(ReadShard)": "reader", "MapBatches(Annotate)": "actor"}
_EVERY_S = 0.5  # looking costs some milliseconds itself


class CpuMeter:
    """Counts from its making on what it sees: a process that ends, to the last look at it."""

    def __init__(self) -> None:
        self._spent: dict[psutil.Process, float] = {}
        self._roles: dict[psutil.Process, str] = {}
        self._next_look = 0.0
        self.look()
        self._before = dict(self._spent)

    def look(self) -> None:
        """To be called often; does something twice a second."""
        if time.monotonic() < self._next_look:
            return
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                self._look_at(process, "driver" if process == me else "Ray itself")
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self._next_look = time.monotonic() + _EVERY_S

    def _look_at(self, process: psutil.Process, otherwise: str) -> None:
        times, title = process.cpu_times(), " ".join(process.cmdline())
        self._spent[process] = times.user + times.system
        # A worker's title says what it does at the moment, and an idle one's nothing.
        role = next((role for name, role in _ROLES.items() if name in title), None)
        if role is not None or process not in self._roles:
            self._roles[process] = role or otherwise

    @property
    def spent_s(self) -> dict[str, float]:
        """By role: driver, reader, actor, Ray itself."""
        found = defaultdict[str, float](float)
        for process, spent_s in self._spent.items():
            found[self._roles[process]] += spent_s - self._before.get(process, 0.0)
        return dict(found)
