"""Logging of the command line."""

import logging
import os
import sys

from pipeline.logs import TEXT, JsonLines, LogFormat, style_here
from pipeline.version import JOB_VARIABLE


def begin_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format=TEXT)


def log_as(log_format: LogFormat, job: str) -> None:
    """Set the format from here on. With `json`, Python's warnings become log lines, too."""
    if log_format == "text":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(os.environ.get(JOB_VARIABLE) or job))
    root = logging.getLogger()
    root.handlers = [handler]
    logging.captureWarnings(True)


def is_json() -> bool:
    """Return whether everything on the standard error has to be a log line."""
    return style_here().format == "json"
