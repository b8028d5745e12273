"""Places that a command line names, checked before any work.

Every function raises SpecError, naming the place. None is an option that was not given.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import SpecError
from pipeline.storage.objects import is_text

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)")  # a Path has made one slash of two


def check_working_directory() -> None:
    """Check that it is there: without one, libraries such as torch end the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise SpecError(
            f"the working directory cannot be used ({error.strerror}): change to another one"
        ) from error


def check_text(arguments: Sequence[str]) -> None:
    """Check that job.json can hold every argument."""
    for argument in arguments:
        if "\0" in argument or not is_text(argument):
            raise SpecError(f"the argument {argument!a} is no UTF-8 text: use another name")


def check_file(path: Path) -> None:
    """Check that there is a file to read."""
    _check_local(path)
    if not path.is_file():
        raise SpecError(f"{path}: no such file: check the name")


def check_folder(path: Path | None) -> None:
    """Check that there is a folder to read."""
    if path is not None:
        _check_local(path)
        if not path.is_dir():
            raise SpecError(f"{path}: no such folder: check the name")


def check_new_file(path: Path | None) -> None:
    """Check that a file can be written there. An existing one will be replaced."""
    if path is None:
        return
    _check_local(path)
    if path.is_dir():
        raise SpecError(f"{path} is a folder: name a file")
    if not path.parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent}: make it, or name another place")
    _check_writable(path.parent)


def check_new_folder(path: Path) -> None:
    """Check that a folder can be made there, or be filled."""
    _check_local(path)
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise SpecError(f"{there} is not a folder: name another place")
    _check_writable(there)


def _check_local(path: Path) -> None:
    if _URL.match(str(path)):
        raise SpecError(f"{path}: must be a path on this machine, not a URL")


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{folder} cannot be written to: name another place")
