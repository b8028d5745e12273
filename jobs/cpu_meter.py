"""CPU time of this process and of all that it started, by what they do."""

from collections import defaultdict

import psutil

_ROLES = {"MapBatches(ReadShard)": "reader", "MapBatches(Annotate)": "actor"}


class CpuMeter:
    """Counts from `start` on what `look` finds: a process that ends is counted to its last look."""

    def __init__(self) -> None:
        self._spent: dict[psutil.Process, float] = {}
        self._before: dict[psutil.Process, float] = {}
        self._roles: dict[psutil.Process, str] = {}

    def start(self) -> None:
        self.look()
        self._before = dict(self._spent)

    def look(self) -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                times, title = process.cpu_times(), " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            self._spent[process] = times.user + times.system
            # A worker's title says what it does at the moment.
            role = next((role for name, role in _ROLES.items() if name in title), None)
            if role or process not in self._roles:
                self._roles[process] = role or ("driver" if process == me else "Ray itself")

    @property
    def spent_s(self) -> dict[str, float]:
        """By role: driver, reader, actor, Ray itself."""
        found = defaultdict[str, float](float)
        for process, spent_s in self._spent.items():
            found[self._roles[process]] += spent_s - self._before.get(process, 0.0)
        return dict(found)
