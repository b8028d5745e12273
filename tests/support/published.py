"""The published tokenizer and processor settings, which are not part of this repository."""

import os
import tempfile
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoProcessor, Kosmos2Processor

from kosmos2_core.checkpoint.load import Checkpoint, load_checkpoint
from tests.support.checkpoints import random_checkpoint

_VARIABLE = "KOSMOS2_PROCESSOR"
_FOLDER = os.environ.get(_VARIABLE)

needs_published_processor = pytest.mark.skipif(
    _FOLDER is None,
    reason=f"{_VARIABLE} does not name a folder with the processor and tokenizer files of "
    "microsoft/kosmos-2-patch14-224",
)


def published_checkpoint(directory: Path) -> Path:
    """Save a small model with random weights and the published vocabulary. Returns `directory`."""
    assert _FOLDER is not None
    return random_checkpoint(directory, processor=Path(_FOLDER))


@cache
def published() -> Checkpoint:
    """Such a model, loaded once in this process."""
    with tempfile.TemporaryDirectory() as directory:
        return load_checkpoint(str(published_checkpoint(Path(directory))), device="cpu")


@cache
def published_processor() -> Kosmos2Processor:
    return AutoProcessor.from_pretrained(_FOLDER)
