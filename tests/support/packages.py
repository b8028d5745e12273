"""Other versions of packages, in folders that shadow those of this environment."""

import subprocess
import sys
from pathlib import Path

import pytest


def install(folder: Path, *requirements: str) -> None:
    """Install into a folder that a PYTHONPATH can begin with, or skip the test.

    Packages come from the registries that pip is configured with. The reason of the skip is pip's.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    done = subprocess.run([*pip, *requirements], check=False, capture_output=True, text=True)
    if done.returncode:
        reason = next(line for line in done.stderr.splitlines() if line.startswith("ERROR"))
        pytest.skip(f"{requirements[-1]} cannot be had: {reason}")
