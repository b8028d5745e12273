"""Identity, the settings that decide the content of a dataset, and their record in `job.json`."""

import hashlib
from typing import Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from kosmos2_core.generation import GrammarMode, NgramMode
from pipeline.schema import annotation_schema
from pipeline.spec.fields import carried_columns
from pipeline.spec.job import JobSpec
from pipeline.spec.tasks import TaskUse
from pipeline.storage.ignored import Ignored

SCHEMA_VERSION = 2
# The conversion of bytes to pixels. Another one changes pixels by a level and thus, rarely, a
# token.
IMAGE_PATH = "simplejpeg+torch-bicubic"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Derivation(_Frozen):
    """A step that made a dataset from another one.

    `source_fingerprint` is that of the source; `parameters` are the requested options, as on the
    command line. Earlier versions of `dedup` wrote `source_commits`, a digest of all commits of the
    source; now `rounds/` has them.
    """

    operation: Literal["filter", "dedup"]
    source_fingerprint: str
    parameters: tuple[str, ...]
    source_commits: str | None = None


class TaskIdentity(_Frozen):
    name: str
    prompt: str
    max_new_tokens: int
    sources: tuple[tuple[str, str], ...] = ()
    is_done_with_boxes: bool = False

    @classmethod
    def of(cls, use: TaskUse) -> Self:
        return cls(
            name=use.task.name,
            prompt=use.task.prompt,
            max_new_tokens=use.task.max_new_tokens,
            sources=use.sources,
            is_done_with_boxes=use.task.is_done_with_boxes,
        )


class Identity(_Frozen):
    """The settings that decide the content of an annotation. One output holds one identity.

    A later field has a default: the behaviour before there was a choice. At that value it is left
    out of the fingerprint, so that earlier datasets can be resumed.
    """

    schema_version: int
    weights_digest: str
    dtype: str
    no_repeat_ngram_size: int
    exif: str
    image_path: str
    tasks: tuple[TaskIdentity, ...]
    ngram_mode: NgramMode = "reference"
    grammar: GrammarMode = "off"
    verify_boxes: bool = False
    decode: Literal["exact", "fast"] = "exact"
    image_column: str | None = None
    image_member: str | None = None
    carry: tuple[str, ...] = ()
    metadata: str = "all"
    derived: tuple[Derivation, ...] = ()

    def derived_by(self, derivation: Derivation) -> "Identity":
        """Return the identity of a dataset that this derivation makes from this one."""
        return self.model_copy(update={"derived": (*self.derived, derivation)})

    @property
    def schema_of_rows(self) -> pa.Schema:
        """The schema of an annotations file."""
        return annotation_schema(carried_columns(self.carry))

    @property
    def fingerprint(self) -> str:
        content = self.model_dump_json(exclude_defaults=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def differences(self, other: "Identity") -> dict[str, tuple[object, object]]:
        """Return {field: (mine, the other's)} for the fields that differ."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}


class ResolvedModel(_Frozen):
    """The model as an actor loaded it, with names resolved. `memory_bytes` is an estimate."""

    id: str
    commit: str | None
    weights_digest: str
    device: str
    dtype: str
    no_repeat_ngram_size: int
    ngram_mode: NgramMode = "reference"
    slots: int | None = None
    memory_bytes: int | None = None

    def pinned(self, spec: JobSpec) -> JobSpec:
        """Return `spec` with this dtype, and with the hub's commit: a branch may move."""
        model = spec.model if self.commit is None else f"{self.id}@{self.commit}"
        return spec.model_copy(update={"model": model, "dtype": self.dtype})


def schema_of_rows(spec: JobSpec) -> pa.Schema:
    """Return the schema of the rows that a job makes."""
    return annotation_schema(carried_columns(tuple(map(str, spec.carry))))


def identity_of(spec: JobSpec, model: ResolvedModel) -> Identity:
    return Identity(
        schema_version=SCHEMA_VERSION,
        weights_digest=model.weights_digest,
        dtype=model.dtype,
        no_repeat_ngram_size=model.no_repeat_ngram_size,
        exif=spec.exif,
        image_path=IMAGE_PATH,
        tasks=tuple(map(TaskIdentity.of, spec.tasks)),
        ngram_mode=model.ngram_mode,
        grammar=spec.grammar,
        verify_boxes=spec.verify_boxes,
        decode=spec.decode,
        image_column=spec.image_column,
        image_member=spec.image_member,
        carry=tuple(map(str, spec.carry)),
        metadata=spec.metadata,
    )


class JobRecord(_Frozen):
    """The content of `job.json`: written once by the first run, and checked by every later one.

    `source` is the dataset that this one was derived from; None if it was made from images.
    `ignored` lists what was under the input and was not read.
    """

    spec: JobSpec
    model: ResolvedModel
    identity: Identity
    fingerprint: str
    software: dict[str, str]
    created_at: str
    source: str | None = None
    ignored: tuple[Ignored, ...] = ()

    def asks_for_model_of(self, spec: JobSpec) -> bool:
        """Return whether `spec` names the same model with the same options.

        Other slots and CUDA graphs count as another model: they may need too much memory, or
        another device.
        """
        sampler = ("no_repeat_ngram_size", "ngram_mode", "grammar")
        words = ("model", "device", "dtype", *sampler, "slots", "cuda_graph")
        return all(getattr(self.spec, word) == getattr(spec, word) for word in words)
