"""Log lines of a job: as text, or as one JSON object per line for collectors.

Lines of readers and actors are in Ray's log files of their workers.
"""

import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from pipeline.version import JOB_VARIABLE

LogFormat = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(message)s"
_OURS = ("pipeline", "kosmos2_core")
# Control characters except tab and newline, and marks of the writing direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


def _is_extra(name: str) -> bool:
    """Return whether a field is an `extra`; Ray's own fields begin with "_"."""
    return name not in _OWN and not name.startswith("_")


def printable(text: str) -> str:
    """Return a text without characters that control a terminal or its writing direction.

    Names and messages come from inputs, which may be hostile.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class TextLines(logging.Formatter):
    """Format a record as text that does not control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class JsonLines(logging.Formatter):
    """Format `time`, `level`, `logger`, `message`, `job` and all `extra` of a record as JSON."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "job": self.job,
            **{name: value for name, value in vars(record).items() if _is_extra(name)},
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStyle:
    """The format of log lines, and the name of their job, "" if it has none."""

    format: LogFormat = "text"
    job: str = ""

    def formatter(self) -> logging.Formatter:
        if self.format == "json":
            return JsonLines(self.job)
        return TextLines(TEXT.replace("%(message)s", f"{self.job} %(message)s".lstrip()))


def style_here() -> LogStyle:
    """Return the style of this process, to pass on to its workers."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            return LogStyle(format="json", job=handler.formatter.job)
    return LogStyle(job=os.environ.get(JOB_VARIABLE, ""))


@cache
def write_lines(style: LogStyle) -> None:
    """Write log lines of this process from now on, our own from INFO on.

    With `json`, Python's warnings are written too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(style.formatter())
    logging.getLogger().handlers = [handler]
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(style.format == "json")
