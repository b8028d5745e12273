"""Which version of ours this is, and for whom it runs."""

import tomllib
from importlib.metadata import version
from pathlib import Path

DISTRIBUTION = "kosmos2-annotate"
JOB_VARIABLE = "KOSMOS2_JOB"  # the name of a submitted attempt, for metrics and log lines


def checkout() -> Path | None:
    """The folder that this code lies in with its pyproject.toml, or None where it is installed."""
    root = Path(__file__).parent.parent
    return root if (root / "pyproject.toml").is_file() else None


def our_version() -> str:
    """Return the version of the code that runs: nodes that a job is shipped to may have another."""
    root = checkout()
    if root is None:
        return version(DISTRIBUTION)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return str(project["version"])
