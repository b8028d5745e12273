"""How long tests wait for other processes: in proportion to what starting one takes here."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

_VARIABLE = "KOSMOS2_TEST_PATIENCE"
_START_S = 1.5  # what a process takes to start and to import torch on an idle machine
_HANG_S = 300.0  # on an idle machine; nothing that a test waits for takes half of it


def measure() -> None:
    """Measure this machine, once for a run of pytest: its workers inherit the environment."""
    if _VARIABLE not in os.environ:
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        factor = (time.monotonic() - started) / _START_S
        os.environ[_VARIABLE] = f"{max(factor, 1.0):.1f}"


def patient(seconds: float) -> float:
    """Seconds to wait on this machine for what takes at most `seconds` on an idle one."""
    return seconds * float(os.environ.get(_VARIABLE, "1"))


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds. Raises AssertionError if it never does."""
    deadline, pause_s = time.monotonic() + patient(_HANG_S), 0.01
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {patient(_HANG_S):.0f} s"
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.5)  # to look through all processes takes time


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process; return what it printed and its errors."""
    return process.communicate(timeout=patient(2 * _HANG_S))
