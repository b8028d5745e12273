"""Log lines of a job: for people, or one JSON object a line for whoever collects them.

Those of readers and actors are in Ray's log files of their workers.
"""

import json
import logging
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal

from pipeline.version import JOB_VARIABLE

LogFormat = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(message)s"
_OURS = ("pipeline", "kosmos2_core")
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


def _is_extra(name: str) -> bool:
    """Ray adds fields of its own, which begin with "_"."""
    return name not in _OWN and not name.startswith("_")


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, `job`, and whatever a record was given as `extra`."""

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
    """How a process writes its lines, and which job they are of, "" where that has no name."""

    format: LogFormat = "text"
    job: str = ""

    def formatter(self) -> logging.Formatter:
        if self.format == "json":
            return JsonLines(self.job)
        return logging.Formatter(TEXT.replace("%(message)s", f"{self.job} %(message)s".lstrip()))


def style_here() -> LogStyle:
    """That of this process, for those that work for it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            return LogStyle(format="json", job=handler.formatter.job)
    return LogStyle(job=os.environ.get(JOB_VARIABLE, ""))


@cache
def write_lines(style: LogStyle) -> None:
    """In this process, from here on; our own from INFO on. With `json` Python's warnings, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(style.formatter())
    logging.getLogger().handlers = [handler]
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(style.format == "json")
