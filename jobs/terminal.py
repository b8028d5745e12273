"""Text, tables and progress on a terminal."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from pipeline.logs import printable

_LINE_EVERY_S = 30.0
_BARS = "▁▂▃▄▅▆▇█"


class DataTable(Table):
    """A table of text from data: markup is not interpreted, and control characters are shown.

    A cell is a string, or a `Text` with one style.
    """

    def __init__(
        self,
        *headers: str | Column,
        title: str | None = None,
        show_header: bool = True,
        show_lines: bool = False,
    ) -> None:
        super().__init__(
            title=None if title is None else Text(printable(title), style="table.title"),
            show_header=show_header,
            show_lines=show_lines,
        )
        for header in headers:
            if isinstance(header, str):
                self.add_column(header)
            else:
                self.add_column(header.header, justify=header.justify)

    def add_column(self, header: RenderableType = "", *options: Any, **named: Any) -> None:
        super().add_column(_plain(header), *options, **named)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: Any) -> Any:
    if isinstance(cell, Text):
        return Text(printable(cell.plain), style=cell.style)
    return Text(printable(cell)) if isinstance(cell, str) else cell


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as a line of bars; "" if all are 0."""
    shown = values[-width:]
    most = max(shown, default=0.0)
    if most <= 0:
        return ""
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in shown)


def print_message(text: str, style: str | None = None) -> None:
    """Print a line on the standard error. Markup in it is not interpreted."""
    text = printable(text)
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_results(*pieces: str | DataTable) -> None:
    """Print text and tables on the standard output. Markup in text is not interpreted."""
    console = Console()
    for piece in pieces:
        if isinstance(piece, DataTable):
            console.print(piece)
        else:
            console.print(printable(piece), markup=False, highlight=False, soft_wrap=True)


def print_json(body: object) -> None:
    """Print JSON. An infinite bound, which JSON cannot hold, is null."""
    print(json.dumps(_finite(body), indent=2, allow_nan=False))


def json_line(body: object) -> str:
    """Return JSON in one line. An infinite bound, which JSON cannot hold, is null."""
    return json.dumps(_finite(body), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pairs_table(
    rows: Iterable[tuple[str, object]], *header: str, title: str | None = None
) -> DataTable:
    """Return a table with a name and a value in each row."""
    table = DataTable(*(header or ("", "")), title=title, show_header=bool(header))
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def hours_minutes_seconds(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


@contextmanager
def counting_bar(what: str = "shards read") -> Iterator[Callable[[int, int], None]]:
    """Show a bar; yield a function that takes the number done and the total."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        counted = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(counted, completed=done, total=of)


class LineTimer:
    """Tells when a line of progress is due where a bar cannot be shown: every 30 s."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return True once per period."""
        if time.monotonic() - self._last < _LINE_EVERY_S:
            return False
        self._last = time.monotonic()
        return True
