"""Progress on a terminal, for commands that read a whole dataset."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def shards_bar() -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with the shards read so far, and how many there are."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        shards = bar.add_task("shards read", total=None)
        yield lambda done, of: bar.update(shards, completed=done, total=of)
