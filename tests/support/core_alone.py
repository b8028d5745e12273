"""A Python where only the core is installed: it finds no package of the job."""

import subprocess
import sys
from pathlib import Path

_WITHOUT = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"ray", "pipeline", "jobs", "cyclopts", "pydantic", "rich", "pyarrow", "fsspec", "s3fs"}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ABSENT else super().find_spec(name, path, target)

sys.meta_path = [Without if each is PathFinder else each for each in sys.meta_path]
"""


def run_with_core_alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in such a process."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT + code],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
