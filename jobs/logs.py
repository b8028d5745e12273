"""Log lines of a job: for people, or one JSON object a line for whoever collects them."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal

from pipeline.software import JOB_VARIABLE

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(message)s"
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


def _is_extra(name: str) -> bool:
    """Ray adds fields of its own, which begin with "_"."""
    return name not in _OWN and not name.startswith("_")


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, `job`, and whatever a record was given as `extra`."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "job": self._job,
            **{name: value for name, value in vars(record).items() if _is_extra(name)},
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False, default=str)


def begin_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format=_TEXT)


def log_as(log_format: LogFormat, job: str) -> None:
    """From here on; with `json`, warnings of Python are log lines, too."""
    if log_format == "text":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(os.environ.get(JOB_VARIABLE) or job))
    root = logging.getLogger()
    root.handlers = [handler]
    logging.captureWarnings(True)


def is_json() -> bool:
    """Whether all that goes to the standard error is to be a log line."""
    return any(isinstance(h.formatter, JsonLines) for h in logging.getLogger().handlers)
