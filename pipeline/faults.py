"""Faults on purpose: a testing aid. Off, at the cost of one dict lookup, unless KOSMOS2_FAULTS is
set where the process starts; `cluster.connect` hands it on to readers and actors.

    KOSMOS2_FAULTS = FAULT ";" FAULT ...
    FAULT          = POINT "[" KEY "=" VALUE "," ... "]" ":" N "=" ACTION "@" FILE
    ACTION         = "kill" | "hog" | "pause" | "raise" | "raise:" MODULE "." CLASS

Only POINT and ACTION must be there. `[KEY=VALUE]` asks for such a context, `:N` for the N-th time
that this process comes by (and then never again).

    kill       SIGKILL to this process; with FILE once among all processes, which create it first
    hog        take memory, a quarter of a GiB every tenth of a second and at most 12, until the
               process is killed for it; with FILE likewise once
    raise      Injected, or an exception of that class; with FILE likewise once
    pause      create FILE and wait until somebody writes into it, which lets all later ones pass,
               too; without FILE for ever

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
_POLL_S = 0.01

_FAULT = re.compile(
    r"(?P<point>[\w.]+)(\[(?P<context>[^\]]*)\])?(:(?P<nth>\d+))?"
    r"=(?P<action>kill|hog|pause|raise)(:(?P<error>\w+(\.\w+)+))?(@(?P<file>.+))?"
)


class Injected(Exception):
    """The error of the action `raise`, which no code of ours expects."""


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
        """False where another process, or this one, was here before."""
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
    """Returns if nobody objects."""
    taken = []
    for _ in range(48):
        taken.append(b"\1" * (1 << 28))
        time.sleep(0.1)


_armed: dict[str, list[_Fault]] = {}


def fault(name: str, **context: object) -> None:
    """A point where a fault can be injected: `fault("reader.block", shard_id=...)`."""
    for armed in _armed.get(name, ()):
        armed.pass_by(name, context)


def arm(text: str) -> None:
    """Take these faults instead of the ones before; "" disarms. Raises ValueError."""
    _armed.clear()
    _armed.update(_parse(text))


def _parse(text: str) -> dict[str, list[_Fault]]:
    found = defaultdict(list)
    for one in filter(None, (part.strip() for part in text.split(";"))):
        match = _FAULT.fullmatch(one)
        if match is None:
            raise ValueError(f"{VARIABLE}: {one!r} is not POINT[KEY=VALUE]:N=ACTION@FILE")
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


arm(os.environ.get(VARIABLE, ""))
