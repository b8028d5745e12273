"""Calls in processes beside the driver, on a real Ray."""

import subprocess
import sys

from tests.support.cluster import Kosmos2

CALLS = """
import os
import signal
import time

from pipeline.execution.cluster import connect
from pipeline.execution.stored_tables import CallOnRay


def process_after(seconds, tables):
    time.sleep(*seconds)
    return os.getpid()


def two_at_once():
    calls = [call(process_after, [1], []) for _ in range(2)]
    return {each.result() for each in calls}


connect()
call = CallOnRay()
first = call(process_after, [0], []).result()
assert call(process_after, [0], []).result() == first, "a process is used again"
both = two_at_once()
assert len(both) == 2 and first in both, "no call waits for another one"
os.kill(first, signal.SIGKILL)
assert len(two_at_once() - {first}) == 2, "a call does not depend on a process"
"""


def test_a_call_takes_a_process_that_is_free_or_a_new_one(kosmos2: Kosmos2) -> None:
    subprocess.run([sys.executable, "-c", CALLS], env=dict(kosmos2.environment), check=True)
