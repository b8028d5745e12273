"""Text, tables and progress on a terminal."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

_LINE_EVERY_S = 30.0


def print_message(text: str, style: str | None = None) -> None:
    """Print a line for people on the standard error. It may hold names: it is no markup."""
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_results(*pieces: str | Table) -> None:
    """Print results on the standard output. Text may hold names: it is no markup."""
    console = Console()
    for piece in pieces:
        if isinstance(piece, Table):
            console.print(piece)
        else:
            console.print(piece, markup=False, highlight=False, soft_wrap=True)


def print_json(body: object) -> None:
    print(json.dumps(body, indent=2))


def write_json(body: object, path: Path | None) -> None:
    """Write the same as a file, if one was asked for."""
    if path is not None:
        path.write_text(json.dumps(body, indent=2))


def pairs_table(
    rows: Iterable[tuple[str, object]], *header: str, title: str | None = None
) -> Table:
    """A name and a value in each row. Both may come from the data."""
    table = Table(*(header or ("", "")), title=title, show_header=bool(header))
    for name, value in rows:
        table.add_row(Text(name), Text(str(value)))
    return table


def hours_minutes_seconds(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


@contextmanager
def counting_bar(what: str = "shards read") -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with how many are done, and how many there are."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        counted = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(counted, completed=done, total=of)


class LinePace:
    """Says when the next line of a log is due: every 30 s, for a bar is garbage in a log."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """True once per period."""
        if time.monotonic() - self._last < _LINE_EVERY_S:
            return False
        self._last = time.monotonic()
        return True
