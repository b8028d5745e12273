"""Counts of files under an input that are not read, by reason."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

HIDDEN = "hidden"  # the reason for bookkeeping files
FIRST = 10  # names that are kept for each reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A number of files or folders that are not read for one reason; `first` are the first URIs."""

    reason: str
    count: int
    first: tuple[str, ...] = ()


class IgnoredCount:
    """Counts of ignored files, in bounded memory. They go on from what was `counted` before."""

    def __init__(self, counted: Iterable[Ignored] = ()) -> None:
        self._counts = Counter[str]()
        self._first = defaultdict[str, list[str]](list)
        for each in counted:
            self._add(each)

    def add(self, reason: str, uri: str) -> None:
        # Names of local files can be any bytes, which UTF-8 text cannot hold.
        name = uri.encode("utf-8", "backslashreplace").decode()
        self._add(Ignored(reason=reason, count=1, first=(name,)))

    def _add(self, more: Ignored) -> None:
        self._counts[more.reason] += more.count
        first = self._first[more.reason]
        first += more.first[: FIRST - len(first)]

    def result(self) -> tuple[Ignored, ...]:
        return tuple(
            Ignored(reason=reason, count=count, first=tuple(self._first[reason]))
            for reason, count in self._counts.items()
        )


def ignored_in_one_line(ignored: Iterable[Ignored]) -> str:
    """Return "3 hidden, 2 not images (.txt), 1 archive beside images", or "nothing"."""
    return ", ".join(f"{each.count:,} {_reason(each)}" for each in ignored) or "nothing"


def _reason(each: Ignored) -> str:
    """Return the reason in the singular for one file; many reasons begin with a plural."""
    if each.count != 1:
        return each.reason
    return re.sub(r"^(?!not |in )((?:\w+ )?\w+?)s\b", r"\1", each.reason)
