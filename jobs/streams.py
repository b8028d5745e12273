"""The standard streams, made safe for closed pipes, full disks and narrow encodings."""

import io
import os
import sys
from errno import EPIPE
from typing import Any, TextIO


class OutputLost(Exception):
    """The standard output cannot be written: its reader ended, or its disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to the standard output: {error.strerror}")
        self.is_closed_pipe = error.errno == EPIPE


def open_streams() -> None:
    """Replace the standard streams by ones that take every text and outlive their readers.

    The first write that the standard output refuses raises OutputLost. What the standard error
    refuses is dropped: a run must not end because nobody reads its log.
    """
    for descriptor in range(3):
        _occupy(descriptor)
    if sys.stdout is not None:
        sys.stdout = _opened(sys.stdout, _Raising, line_buffering=sys.stdout.isatty())
    if sys.stderr is not None:
        sys.stderr = _opened(sys.stderr, _Dropping, line_buffering=True)


class _Raising(io.FileIO):
    _is_lost = False

    def write(self, data: Any, /) -> int:
        if self._is_lost:  # what Python still flushes when it exits
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            raise OutputLost(error) from None


class _Dropping(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _opened(stream: TextIO, raw: type[io.FileIO], *, line_buffering: bool) -> TextIO:
    """Open the same file again; characters that its encoding lacks are escaped."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
    )


def _occupy(descriptor: int) -> None:
    """Open /dev/null in place of a closed stream, or the next file would take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
