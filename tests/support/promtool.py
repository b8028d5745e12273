"""Prometheus' own checker, where this machine has one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_HINT = "no promtool on the PATH: `apt-get install prometheus`"


def promtool(*arguments: str | Path) -> str:
    """What it says; fails where it finds fault. Without one the test is skipped, but not by CI."""
    path = shutil.which("promtool")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_HINT)
    done = subprocess.run([path, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
