"""What an actor loads, and what it says that `auto` came to."""

from typing import Any

import pytest

from kosmos2_core.errors import NotEnoughMemory
from pipeline.execution.model import load_annotator, resolved_model
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec

SPEC = JobSpec(input="in", output="out", device="cpu")


def resolved(**options: Any) -> ResolvedModel:
    return resolved_model(load_annotator(SPEC.model_copy(update=options)))


def test_auto_comes_to_what_this_machine_and_the_checkpoint_say() -> None:
    model = resolved()
    assert (model.id, model.device, model.dtype) == ("shapes", "cpu", "float32")
    assert (model.ngram_mode, model.no_repeat_ngram_size, model.slots) == ("reference", 0, 16)
    assert model.memory_bytes is not None


def test_options_reach_the_annotator() -> None:
    options = {"grammar": "strict", "slots": 3, "no_repeat_ngram_size": 3, "dtype": "bfloat16"}
    annotator = load_annotator(SPEC.model_copy(update=options))
    assert (annotator.generation.grammar, annotator.generation.slots) == ("strict", 3)
    model = resolved_model(annotator)
    assert (model.ngram_mode, model.slots, model.dtype) == ("text", 3, "bfloat16")
    assert model.no_repeat_ngram_size == 3


def test_longer_tasks_need_more_memory() -> None:
    brief, detailed = (resolved(task=(name,)).memory_bytes for name in ("brief", "detailed"))
    assert brief is not None
    assert detailed is not None
    assert brief < detailed


def test_too_many_slots_are_refused() -> None:
    with pytest.raises(NotEnoughMemory, match="use at most"):
        resolved(slots=10_000_000)
