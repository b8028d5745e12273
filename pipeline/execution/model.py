"""The model that an actor loads, and its report to the driver.

Modules that need torch are imported where they run; the driver, which imports this module, never
imports torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict

from kosmos2_core.errors import CheckpointError, first_line
from pipeline.errors import SpecError, WrongIdentity
from pipeline.execution.annotate.images import Model
from pipeline.spec.identity import ResolvedModel, identity_of
from pipeline.spec.job import JobSpec

if TYPE_CHECKING:
    from kosmos2_core.annotator import Annotator


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A loaded model. `resolved` is what names and `auto` came to."""

    model: Model
    resolved: ResolvedModel


LoadModel = Callable[[JobSpec], LoadedModel]


class LoadReport(BaseModel):
    """The outcome of the first load in a pass: the model, or the error that ends the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ResolvedModel | None = None
    error: str = ""

    def loaded(self) -> ResolvedModel:
        """Return the model. Raises SpecError if it did not load."""
        if self.model is None:
            raise SpecError(self.error)
        return self.model


class Note(Protocol):
    """A text that the first process writes and all others read."""

    def read(self) -> str | None: ...

    def write_once(self, text: str) -> str:
        """Write the text if there is none yet. Return the text that is there."""
        ...


def load_model(spec: JobSpec) -> LoadedModel:
    """Load the job's own model. Raises CheckpointError."""
    from kosmos2_core.shared_annotator import SharedAnnotator

    annotator = load_annotator(spec)
    return LoadedModel(model=SharedAnnotator(annotator), resolved=resolved_model(annotator))


def load_annotator(spec: JobSpec) -> "Annotator":
    """Load an annotator for the job. Raises CheckpointError."""
    from kosmos2_core.annotator import Annotator
    from pipeline.models.staging import stage_model

    return Annotator.from_pretrained(
        stage_model(spec.model),
        device=spec.device,
        dtype=spec.dtype,
        generation=spec.generation,
        tasks=[use.task for use in spec.tasks],
        gpu_share=min(spec.gpus_per_actor or 1, 1),
    )


def resolved_model(annotator: "Annotator") -> ResolvedModel:
    checkpoint, generation = annotator.checkpoint, annotator.generation
    return ResolvedModel(
        id=checkpoint.provenance.id,
        commit=checkpoint.provenance.commit,
        weights_digest=checkpoint.provenance.weights_digest,
        device=checkpoint.device.type,
        dtype=checkpoint.dtype_name,
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        ngram_mode=generation.resolved_ngram_mode,
        slots=generation.slots,
        memory_bytes=annotator.memory_bytes,
    )


def load_and_report(
    spec: JobSpec, known: ResolvedModel | None, load: LoadModel, note: Note
) -> Model:
    """Load the model in an actor, and report the outcome unless another actor has.

    The model must be `known`; if there is none, that of the first report, whose commit and dtype
    are then loaded. Raises WrongIdentity, and whatever `load` raises.
    """
    expected = known or _reported(note.read())
    try:
        loaded = load(expected.pinned(spec) if expected else spec)
    except Exception as error:
        note.write_once(LoadReport(error=_error_text(spec, error)).model_dump_json())
        raise
    report = LoadReport(model=loaded.resolved).model_dump_json()
    first = _reported(note.write_once(report))
    expected = known or first or loaded.resolved
    if identity_of(spec, loaded.resolved) != identity_of(spec, expected):
        raise WrongIdentity(
            f"the checkpoint {spec.model} of this node is not the one of the job; put the same "
            "checkpoint on all nodes"
        )
    return loaded.model


def _reported(text: str | None) -> ResolvedModel | None:
    return LoadReport.model_validate_json(text).model if text else None


def _error_text(spec: JobSpec, error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    return (
        f"the model {spec.model} could not be loaded with --device {spec.device} "
        f"({type(error).__name__}: {first_line(error)}); see Ray's worker logs, or try another "
        "device"
    )
