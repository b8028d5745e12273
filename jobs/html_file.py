"""A page that we made, as a file."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console


def write_html(path: Path, pieces: Iterable[str], *, name: str) -> None:
    """Whole or not at all: what fails or is interrupted leaves an earlier page as it was."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        unfinished.replace(path)
    except OSError as error:
        if error.filename is not None:
            error.filename = str(path)  # the other name says nothing to whoever gave this one
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    Console(stderr=True).print(f"{name}: {path}", highlight=False, soft_wrap=True)
