"""Counts of files under an input that are not read, by reason."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

HIDDEN = "hidden"  # the reason for bookkeeping files
FIRST = 10  # names that are kept for each reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A number of files or folders that are not read for one reason; `first` are the first URIs."""

    reason: str
    count: int
    first: tuple[str, ...] = ()


@dataclass(slots=True)
class IgnoredCount:
    """Counts of ignored files, in bounded memory."""

    _counts: dict[str, int] = field(default_factory=dict)
    _first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, uri: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < FIRST:
            # Names of local files can be any bytes, which UTF-8 text cannot hold.
            first.append(uri.encode("utf-8", "backslashreplace").decode())

    def include(self, others: Iterable[Ignored]) -> None:
        for each in others:
            self._counts[each.reason] = self._counts.get(each.reason, 0) + each.count
            first = self._first.setdefault(each.reason, [])
            first += each.first[: FIRST - len(first)]

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
