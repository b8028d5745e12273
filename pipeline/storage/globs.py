"""Which paths beneath an input are meant."""

import re
from functools import lru_cache

from fsspec.utils import glob_translate


def is_wanted(path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Patterns without "/" match the name in any folder, others the whole path.

    `*` stays within one path segment, `**` (a segment of its own) spans any number of them. An
    empty `include` takes everything; `exclude` wins.
    """
    if any(is_hidden(segment) for segment in path.split("/")):
        return False
    if include and not any(_matches(path, pattern) for pattern in include):
        return False
    return not any(_matches(path, pattern) for pattern in exclude)


def is_hidden(name: str) -> bool:
    """As Spark and Hive see it: `_SUCCESS` and `.crc` are bookkeeping, `_split=1` is data."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _matches(path: str, pattern: str) -> bool:
    subject = path if "/" in pattern else path.rpartition("/")[2]
    return _compiled(pattern).match(subject) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_translate(pattern))
