"""Patterns that choose paths beneath an input, and names of bookkeeping files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from braceexpand import braceexpand

_WILDCARDS = re.compile(r"[*?\[{]")
# Names that file managers, archivers and table writers use for themselves, in lower case. A name is
# not one of them only because it begins with "_": cameras and people write such names.
_BOOKKEEPING = frozenset(
    {
        *("_success", "_temporary", "_committed", "_started", "_metadata", "_common_metadata"),
        *("_delta_log", "_spark_metadata", "_symlink_format_manifest"),
        *("_success.json", "_derived.json"),  # written by this tool
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
        *("@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    }
)
_BOOKKEEPING_PREFIXES = (".", "_committed_", "_started_")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of that name is bookkeeping, not data."""
    lower = name.lower()
    return lower.startswith(_BOOKKEEPING_PREFIXES) or lower in _BOOKKEEPING


def hidden_part(path: str) -> str | None:
    """Return `path` up to its first hidden segment; None if there is none."""
    segments = path.split("/")
    for number, segment in enumerate(segments, start=1):
        if is_hidden(segment):
            return "/".join(segments[:number])
    return None


def is_included(path: str, include: tuple[str, ...]) -> bool:
    """Return whether a pattern matches, or there is no pattern.

    Patterns without "/" match the name in any folder, others the whole path. `*` stays within one
    segment of the path. `**`, as a whole segment, spans any number of segments.
    """
    return not include or is_excluded(path, include)


def is_excluded(path: str, exclude: tuple[str, ...]) -> bool:
    """Return whether one of the patterns matches, by the rules of `is_included`."""
    return any(_matches(path, each) for pattern in exclude for each in _alternatives(pattern))


def _matches(path: str, pattern: str) -> bool:
    subject = path if "/" in pattern else path.rpartition("/")[2]
    return _compiled(pattern).match(subject) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate  # most processes need none of fsspec

    return re.compile(glob_translate(pattern))


@lru_cache(maxsize=64)
def _alternatives(pattern: str) -> tuple[str, ...]:
    """Return the expansions of `{a,b}` and `{000..099}`; the pattern itself if there are none."""
    try:
        return tuple(braceexpand(pattern)) if "{" in pattern else (pattern,)
    except ValueError:  # braceexpand's error for unmatched braces
        return (pattern,)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedGlob:
    """A path with wildcards, typed as an input: a folder and patterns beneath it."""

    folder: str  # without a slash at its end
    names: frozenset[str]  # relative paths without wildcards
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> "TypedGlob | None":
        """Parse a path; return None if it has no wildcard.

        >>> TypedGlob.of("bucket/a-{00..02}.tar").folder
        'bucket'
        """
        found = _WILDCARDS.search(path)
        if found is None:
            return None
        folder, _, rest = path[: found.start()].rpartition("/")
        every = _alternatives((rest + path[found.start() :]).rstrip("/"))
        return cls(
            folder=folder,
            names=frozenset(each for each in every if not _WILDCARDS.search(each)),
            patterns=tuple(each for each in every if _WILDCARDS.search(each)),
        )

    def matches(self, path: str) -> bool:
        """Return whether a pattern matches the relative path, or a folder above it."""
        return any(
            each in self.names or any(_compiled(p).match(each) for p in self.patterns)
            for each in _with_folders(path)
        )


def _with_folders(path: str) -> Iterator[str]:
    for number, char in enumerate(path):
        if char == "/":
            yield path[:number]
    yield path
