"""Logging of the command line."""

import logging
import os
import sys

from pipeline.logs import TEXT, JsonLines, LogFormat, TextLines, style_here
from pipeline.version import JOB_VARIABLE


def begin_logging() -> None:
    """Log warnings. Bars of other libraries are for a terminal: elsewhere there are none."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines(TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if not (sys.stderr and sys.stderr.isatty()):
        # transformers and huggingface_hub read it when they are imported.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


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
