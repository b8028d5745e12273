"""The version of this code, and the job that it runs for."""

import tomllib
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path

DISTRIBUTION = "kosmos2-annotate"
JOB_VARIABLE = "KOSMOS2_JOB"  # name of a submitted attempt, for metrics and log lines


def checkout() -> Path | None:
    """Return the folder of this code and its pyproject.toml; None if it is installed."""
    root = Path(__file__).parent.parent
    return root if (root / "pyproject.toml").is_file() else None


@cache
def our_version() -> str:
    """Return the version of the running code. Other nodes may have another version installed."""
    root = checkout()
    if root is None:
        return version(DISTRIBUTION)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def our_requirements() -> list[str]:
    """Return the packages that the running code needs, as in pyproject.toml.

    Packages of extras are among them if the code is installed; their markers say so.
    """
    root = checkout()
    if root is None:
        return requires(DISTRIBUTION) or []
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])
