"""Fault injection for tests.

It costs one dict lookup per point unless KOSMOS2_FAULTS is set where the process starts.
`cluster.connect` passes the variable on to readers and actors, for which Ray starts a Python more
each. Where nodes start with KOSMOS2_FAULTS_FILE, their processes take the faults of that file.

    KOSMOS2_FAULTS = FAULT ";" FAULT ...
    FAULT          = POINT "[" KEY "=" VALUE "," ... "]" ":" N "=" ACTION "@" FILE
    ACTION         = "kill" | "hog" | "pause" | "raise" | "raise:" MODULE "." CLASS

Only POINT and ACTION are required. `[KEY=VALUE]` selects a context. `:N` selects the N-th time that
this process reaches the point, and no later one.

    kill       SIGKILL this process; with FILE once among all processes, which create FILE first
    hog        allocate a quarter of a GiB every tenth of a second, at most 12 GiB, until the
               process is killed; with FILE once, as above
    raise      raise Injected, or an exception of that class; with FILE once, as above
    pause      create FILE and wait until something is written into it, which also lets all later
               processes pass; without FILE forever

    committer.before_put=pause@/tmp/here;reader.block[shard_id=a-1f]:3=kill@/tmp/done
"""

import os
import re
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

VARIABLE = "KOSMOS2_FAULTS"
FILE_VARIABLE = "KOSMOS2_FAULTS_FILE"
_POLL_S = 0.01

_FAULT = re.compile(
    r"(?P<point>[\w.]+)(\[(?P<context>[^\]]*)\])?(:(?P<nth>\d+))?"
    r"=(?P<action>kill|hog|pause|raise)(:(?P<error>\w+(\.\w+)+))?(@(?P<file>.+))?"
)


class Injected(Exception):
    """The error of the action `raise`, which no code expects."""


@dataclass(slots=True, kw_only=True)
class _Fault:
    context: dict[str, str]
    nth: int | None
    action: str
    error: str | None
    file: Path | None
    _passed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, point: str, context: dict[str, object]) -> None:
        if any(str(context.get(key)) != value for key, value in self.context.items()):
            return
        with self._lock:
            self._passed += 1
            is_due = self.nth in (None, self._passed)
        if is_due and (self._created() or self.action == "pause"):
            self._happen(point)

    def _created(self) -> bool:
        """Create the file; return False if any process has created it before."""
        if self.file is None:
            return True
        try:
            self.file.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _happen(self, point: str) -> None:
        match self.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hog":
                _hog()
            case "pause":
                while self.file is None or not self.file.stat().st_size:
                    time.sleep(_POLL_S)
            case "raise":
                raise self._exception(f"a fault was injected at {point}")

    def _exception(self, message: str) -> Exception:
        if self.error is None:
            return Injected(message)
        module, _, name = self.error.rpartition(".")
        error: Exception = getattr(import_module(module), name)(message)
        return error


def _hog() -> None:
    """Allocate memory; return if the process is not killed."""
    taken = []
    for _ in range(48):
        taken.append(b"\1" * (1 << 28))
        time.sleep(0.1)


_armed: dict[str, list[_Fault]] = {}


def fault(name: str, **context: object) -> None:
    """Mark a point where a fault can be injected: `fault("reader.block", shard_id=...)`."""
    for armed in _armed.get(name, ()):
        armed.pass_by(name, context)


def arm(text: str) -> None:
    """Replace the armed faults by these; "" disarms all. Raises ValueError."""
    _armed.clear()
    _armed.update(_parse(text))


def _parse(text: str) -> dict[str, list[_Fault]]:
    found = defaultdict(list)
    for one in filter(None, (part.strip() for part in text.split(";"))):
        match = _FAULT.fullmatch(one)
        if match is None:
            raise ValueError(
                f"{VARIABLE}: {one!r} is not POINT[KEY=VALUE]:N=ACTION@FILE; correct it"
            )
        pairs = (pair.partition("=") for pair in (match["context"] or "").split(",") if pair)
        found[match["point"]].append(
            _Fault(
                context={key: value for key, _, value in pairs},
                nth=int(match["nth"]) if match["nth"] else None,
                action=match["action"],
                error=match["error"],
                file=Path(match["file"]) if match["file"] else None,
            )
        )
    return dict(found)


def _told() -> str:
    """Return the faults that the environment has for this process."""
    file = os.environ.get(FILE_VARIABLE)
    return Path(file).read_text() if file else os.environ.get(VARIABLE, "")


arm(_told())
