"""The versions of Ray that a run works with."""

import platform
import re

import ray

from pipeline.errors import SpecError

# Each minor version was tried: tests/e2e/test_ray_versions.py. pyproject.toml says the same.
FIRST, LAST = (2, 53), (2, 60)
RANGE = f"Ray {FIRST[0]}.{FIRST[1]} to {LAST[0]}.{LAST[1]}"
_SIDES = re.compile(r"Ray: (\S+)\s+Python: (\S+)")  # of a cluster, then of this process


def is_supported(version: str) -> bool:
    """Return whether a run works with this version of Ray, such as 2.60.0."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and FIRST <= (int(match[1]), int(match[2])) <= LAST


def check_own_version() -> None:
    """Raise SpecError if a run does not work with the Ray that is installed here."""
    if not is_supported(ray.__version__):
        raise SpecError(
            f"Ray {ray.__version__} is installed here, and kosmos2 works with {RANGE}; install the "
            f"version of your cluster, or for this machine only: pip install '{_requirement()}'"
        )


def check_cluster_version(version: str, address: str) -> None:
    """Raise SpecError if a job does not work on a cluster with this version of Ray."""
    if not is_supported(version):
        raise SpecError(
            f"the Ray cluster at {address} runs Ray {version}, this machine Ray {ray.__version__}, "
            f"and kosmos2 works with {RANGE}; use a cluster with one of these"
        )


def mismatch(said: str, address: str) -> SpecError | None:
    """Return an error that names both versions, if this is Ray's word of a difference.

    Args:
        said: Message of the error with which Ray refused to connect.
        address: Address of the cluster.
    """
    sides = _SIDES.findall(said)
    if len(sides) != 2:
        return None
    version, python = sides[0]
    return unlike(version, address, python)


def unlike(version: str, address: str, python: str = "") -> SpecError:
    """Return an error for a cluster with other versions than here.

    Args:
        version: The cluster's version of Ray.
        address: Address of the cluster.
        python: The cluster's version of Python; empty if unknown.
    """
    own = platform.python_version()
    if not is_supported(version):
        remedy = f"kosmos2 works with {RANGE}: use a cluster with one of these"
    else:
        same = f", with Python {python}" if python not in ("", own) else ""
        remedy = (
            f"install the same here (pip install '{_requirement(version)}'{same}), or use "
            "`kosmos2 submit`, whose driver runs on the cluster"
        )
    there = f"Ray {version}{python and f' on Python {python}'}"
    return SpecError(
        f"the Ray cluster at {address} runs {there}, this machine Ray {ray.__version__} on Python "
        f"{own}; {remedy}"
    )


def _requirement(version: str = "") -> str:
    bounds = f">={FIRST[0]}.{FIRST[1]},<{LAST[0]}.{LAST[1] + 1}"
    return f"ray[data,default]{f'=={version}' if version else bounds}"
