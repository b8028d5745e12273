"""What an actor loads, and what it says that `auto` came to."""

from typing import Any

import pytest

from kosmos2_core.errors import CheckpointError, NotEnoughMemory
from pipeline.errors import SpecError, WrongIdentity
from pipeline.execution.model import (
    LoadedModel,
    LoadReport,
    load_and_report,
    load_annotator,
    resolved_model,
)
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from tests.support.annotators import Answering
from tests.support.tars import MODEL

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


# ---- what actors report


class TextOnce:
    """A note of one process."""

    text: str | None = None

    def read(self) -> str | None:
        return self.text

    def write_once(self, text: str) -> str:
        self.text = self.text or text
        return self.text

    def reported(self) -> ResolvedModel:
        assert self.text is not None
        return LoadReport.model_validate_json(self.text).loaded()


class Loads:
    """Loads a model as this node has it, and keeps what it was asked for."""

    def __init__(self, model: ResolvedModel | Exception) -> None:
        self.model = model
        self.asked: list[JobSpec] = []

    def __call__(self, spec: JobSpec) -> LoadedModel:
        self.asked.append(spec)
        if isinstance(self.model, Exception):
            raise self.model
        return LoadedModel(model=Answering(), resolved=self.model)


OTHER = MODEL.model_copy(update={"weights_digest": "f" * 64})


def test_the_first_actor_reports_and_the_others_load_the_same() -> None:
    note, first, second = TextOnce(), Loads(MODEL), Loads(MODEL)
    for load in (first, second):
        assert isinstance(load_and_report(SPEC, None, load, note), Answering)
    assert note.reported() == MODEL
    assert [(spec.model, spec.dtype) for spec in first.asked] == [("shapes", "auto")]
    assert [(spec.model, spec.dtype) for spec in second.asked] == [
        (f"{MODEL.id}@{MODEL.commit}", MODEL.dtype)
    ]


def test_an_actor_with_another_model_than_the_first_one_makes_no_rows() -> None:
    note = TextOnce()
    load_and_report(SPEC, None, Loads(MODEL), note)
    with pytest.raises(WrongIdentity, match="put the same checkpoint on all nodes"):
        load_and_report(SPEC, None, Loads(OTHER), note)
    assert note.reported() == MODEL


def test_an_actor_of_an_existing_job_reports_what_it_loaded_instead() -> None:
    note = TextOnce()
    with pytest.raises(WrongIdentity):
        load_and_report(SPEC, MODEL, Loads(OTHER), note)
    assert note.reported() == OTHER  # the driver names the difference


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CheckpointError("checkpoint x: no weights"), "^checkpoint x: no weights$"),
        (
            RuntimeError("CUDA error: out of memory\nCompile with ..."),
            r"^the model shapes could not be loaded with --device cpu \(RuntimeError: CUDA error: "
            r"out of memory\); see Ray's worker logs, or try another device$",
        ),
    ],
)
def test_an_error_of_the_first_load_is_reported_in_one_sentence(
    error: Exception, said: str
) -> None:
    note = TextOnce()
    with pytest.raises(type(error)):
        load_and_report(SPEC, None, Loads(error), note)
    with pytest.raises(SpecError, match=said):
        note.reported()


def test_an_error_of_a_later_load_is_not_the_runs() -> None:
    note = TextOnce()
    load_and_report(SPEC, None, Loads(MODEL), note)
    with pytest.raises(OSError, match="slow"):
        load_and_report(SPEC, None, Loads(OSError("slow")), note)
    assert note.reported() == MODEL
