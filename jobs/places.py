"""Files and folders of this machine that a command line names, checked before any work."""

import os
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)")  # a Path has made one slash of two


def _check_local(path: Path) -> None:
    if _URL.match(str(path)):
        raise ValueError("It must be a path on this machine, not a URL")


def _existing_file(_: object, path: Path | None) -> None:
    if path is not None:
        _check_local(path)
        if not path.is_file():
            raise ValueError("There is no such file: check the name")


def _existing_folder(_: object, path: Path | None) -> None:
    if path is not None:
        _check_local(path)
        if not path.is_dir():
            raise ValueError("There is no such folder: check the name")


def _new_file(_: object, path: Path | None) -> None:
    if path is None:
        return
    _check_local(path)
    if path.is_dir():
        raise ValueError("It is a folder: name a file")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent}: make it, or name another place")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path.parent} cannot be written to: name another place")


def _new_folder(_: object, path: Path | None) -> None:
    if path is None:
        return
    _check_local(path)
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise ValueError(f"{there} is not a folder: name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} cannot be written to: name another place")


ExistingFile = Annotated[Path, Parameter(validator=_existing_file)]
ExistingFolder = Annotated[Path, Parameter(validator=_existing_folder)]
NewFile = Annotated[Path, Parameter(validator=_new_file)]
NewFolder = Annotated[Path, Parameter(validator=_new_folder)]
