"""Progress on a terminal, for commands that take their time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with how many are done so far, and how many there are."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        counted = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(counted, completed=done, total=of)


def shards_bar() -> AbstractContextManager[Callable[[int, int], None]]:
    return counting_bar("shards read")
