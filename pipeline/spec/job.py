"""JobSpec: all that defines a run; Identity: what of it decides the content of the dataset.

Options are declared here once; the command line's flags and help derive from them.
"""

import hashlib
from typing import Literal, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kosmos2_core.engine.sampling.modes import GrammarMode, NgramMode, ngram_mode_for
from kosmos2_core.prompts.tasks import TASKS
from pipeline.schema import annotation_schema
from pipeline.spec.access import OutputAccess
from pipeline.spec.fields import Carried, FieldChoice, carried_columns
from pipeline.spec.identity import Derivation
from pipeline.spec.kinds import InputKind
from pipeline.spec.partition import Partition
from pipeline.spec.resources import Actors, Placement
from pipeline.spec.tasks import TaskDefinition, TaskUse
from pipeline.storage import StorageOptions
from pipeline.storage.ignored import Ignored
from pipeline.storage.objects import locate

SCHEMA_VERSION = 2
# The way from bytes to pixels; another one changes pixels by a level and so, rarely, a token.
IMAGE_PATH = "simplejpeg+torch-bicubic"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobOptions(OutputAccess, Placement):
    """Everything about a run but where it reads and writes. Holds names, never credentials."""

    task: tuple[str, ...] = Field(
        ("brief",),
        description=f"What to ask about each image: {', '.join(TASKS)}. Repeat for more; fields "
        "of a prompt: ground:phrase=caption.",
    )
    define: tuple[TaskDefinition, ...] = Field(
        (), description="A task of your own, as JSON: docs/tasks.md. Repeat for more."
    )
    model: str = Field(
        "shapes",
        description="Hub id (owner/name[@revision]), directory, or `shapes`, the embedded default.",
    )
    device: str = Field("auto", description="auto, cpu, cuda. auto: CUDA where there is one.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: float32 on the CPU, float16 on CUDA."
    )
    no_repeat_ngram_size: int | None = Field(
        None,
        ge=0,
        description="Ban repeated n-grams; 0 bans none. Default: as the checkpoint says.",
    )
    ngram_mode: NgramMode | None = Field(
        None,
        description="reference: as Hugging Face bans n-grams, tags and boxes too. text: of words "
        "alone. Default: reference, or text with --grammar strict.",
    )
    grammar: GrammarMode = Field(
        "off",
        description="strict: only well-formed phrases and boxes; the issue `grammar_enforced` says "
        "where that took effect.",
    )
    verify_boxes: bool = Field(
        False,
        description="Ground each phrase once more on its own: boxes get their `consistency`.",
    )
    exif: Literal["apply", "ignore"] = Field(
        "apply", description="Turn images upright by their EXIF orientation?"
    )
    slots: int | None = Field(
        None,
        ge=1,
        description="Images decoded at once per actor. Default: as many as fit into memory.",
    )
    cuda_graph: bool = Field(
        False, description="On CUDA, replay each decode step as one graph. Never tried on a GPU."
    )
    limit: int | None = Field(None, ge=1, description="Annotate only the first N shards.")
    partition: str = Field(
        "0/1",
        description="I/N: do part I of N, counted from 0, so that N jobs make one dataset.",
    )
    input_format: Literal["auto", InputKind] = Field(
        "auto",
        description="Kind of input: docs/inputs.md.",
    )
    image_column: str | None = Field(
        None,
        description="Column of images or names: jpg, images.0.",
    )
    image_member: str | None = Field(
        None,
        description="Image of a tar's sample: jpg, left.png.",
    )
    samples_per_shard: int = Field(
        1000,
        ge=1,
        description="About so many, where a shard is a part.",
    )
    allow_http: bool = Field(
        False,
        description="Fetch what a manifest names on the web.",
    )
    carry: tuple[str, ...] = Field(
        (),
        description="NAME or NAME:TYPE, ...: fields as columns (string, int64, double, bool).",
    )
    metadata: str = Field(
        "all",
        description="Fields that this column keeps: all, none, or NAME,NAME,...",
    )
    include: tuple[str, ...] = Field(
        (),
        description="Glob of input names to take. Repeat for more.",
    )
    exclude: tuple[str, ...] = Field(
        (), description="Glob of input names to leave. Repeat for more."
    )
    extend: bool = Field(False, description="Plan inputs that appeared since, too.")
    max_reject_rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A shard of at least 50 samples with more rejected fails, uncommitted.",
    )
    stall_timeout_s: float = Field(
        600, gt=0, description="Give up (exit 5) after so many seconds without any progress."
    )
    input_endpoint_url: str | None = Field(None, description="S3 endpoint of the input.")
    input_profile: str | None = Field(None, description="AWS profile for the input.")

    @field_validator("define")
    @classmethod
    def _defined_once(cls, define: tuple[TaskDefinition, ...]) -> tuple[TaskDefinition, ...]:
        if len({each.name for each in define}) < len(define):
            raise ValueError("define each task once")
        return define

    @field_validator("partition")
    @classmethod
    def _is_a_part(cls, partition: str) -> str:
        return str(Partition.parse(partition))

    @field_validator("carry")
    @classmethod
    def _typed_and_distinct(cls, carry: tuple[str, ...]) -> tuple[str, ...]:
        fields = [Carried.parse(each) for text in carry for each in text.split(",")]
        if len({field.name for field in fields}) < len(fields):
            raise ValueError("name each field once")
        return tuple(map(str, fields))

    @field_validator("metadata")
    @classmethod
    def _named(cls, metadata: str) -> str:
        names = [name.strip() for name in metadata.split(",")]
        if not all(names):
            raise ValueError("want all, none, or the names of fields, as in url,license")
        return ",".join(names)

    @property
    def fields(self) -> FieldChoice:
        every = {"all": None, "none": ()}
        return FieldChoice(
            kept=every.get(self.metadata, tuple(self.metadata.split(","))),
            carried=tuple(map(Carried.parse, self.carry)),
        )

    @property
    def part(self) -> Partition:
        return Partition.parse(self.partition)

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        _ = ngram_mode_for(self.ngram_mode, self.grammar)
        if self.slots is None and (self.gpus_per_actor or 1) < 1:
            raise ValueError(
                "actors that share a GPU cannot tell how much of its memory is theirs: give --slots"
            )
        return self

    @property
    def input_storage(self) -> StorageOptions:
        return StorageOptions(
            endpoint_url=self.input_endpoint_url,
            profile=self.input_profile,
            allow_http=self.allow_http,
        )

    @property
    def tasks(self) -> tuple[TaskUse, ...]:
        own = {each.name: each.task for each in self.define}
        return tuple(TaskUse.parse(text, own) for text in self.task)

    @property
    def task_names(self) -> tuple[str, ...]:
        """As in the column `task`."""
        return tuple(use.task.name for use in self.tasks)


class JobSpec(JobOptions):
    input: str = Field(description="Directory, s3:// prefix or any fsspec URL: docs/inputs.md.")
    output: str = Field(description="Directory or s3:// prefix of the dataset.")

    @model_validator(mode="after")
    def _of_known_tasks(self) -> Self:
        """Here, where flags and the job file have come together: one names what the other defines.

        Raises ValueError.
        """
        try:
            names = set(self.task_names)
        except LookupError as error:
            raise ValueError(f"task: {error}") from None
        if not names or len(names) != len(self.task):
            raise ValueError("task: name at least one task, each once")
        return self

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        """All of this goes into job.json. Raises StorageUrlError."""
        _ = self.input_storage, self.output_storage
        _ = locate(self.input), locate(self.output)
        return self

    def pinned_to(self, model: "ResolvedModel") -> "JobSpec":
        """With the hub's commit in place of a branch, which may move while the job runs."""
        if model.commit is None:
            return self
        return self.model_copy(update={"model": f"{model.id}@{model.commit}"})


class RetryOptions(OutputAccess):
    """What to do again; all else is as `job.json` has it."""

    samples: bool = Field(
        False,
        description="Instead of failed shards: rejected samples of committed ones, those that "
        "another try may mend.",
    )
    error_type: str | None = Field(
        None, description="With --samples: those rejected for this reason, whatever it is."
    )
    actors: Actors | None = Field(
        None, description="Model actors, as in `annotate`. Default: as job.json says."
    )
    max_reject_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="A shard of at least 50 samples with more rejected fails again. Default: as "
        "job.json says.",
    )

    @model_validator(mode="after")
    def _reasons_are_of_samples(self) -> Self:
        if self.error_type is not None and not self.samples:
            raise ValueError("--error-type chooses among rejected samples: add --samples")
        return self

    def applied_to(self, spec: JobSpec, output: str) -> JobSpec:
        """The job's spec on `output`, wherever the first run found it."""
        access = self.model_dump(include=set(OutputAccess.model_fields))
        given = self.model_dump(include={"actors", "max_reject_rate"}, exclude_none=True)
        return JobSpec(**{**spec.model_dump(), **access, **given, "output": output})


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
    """What decides the content of an annotation. One output holds one identity.

    A field that comes later has a default: what was done before there was a choice. At that
    value it is left out of the fingerprint, so that earlier datasets can be resumed.
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
    image_column: str | None = None
    image_member: str | None = None
    carry: tuple[str, ...] = ()
    metadata: str = "all"
    derived: tuple[Derivation, ...] = ()

    def derived_by(self, derivation: Derivation) -> "Identity":
        """Of what is made so from a dataset of this identity."""
        return self.model_copy(update={"derived": (*self.derived, derivation)})

    @property
    def schema_of_rows(self) -> pa.Schema:
        """Of an annotations file."""
        return annotation_schema(carried_columns(self.carry))

    @property
    def fingerprint(self) -> str:
        content = self.model_dump_json(exclude_defaults=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def differences(self, other: "Identity") -> dict[str, tuple[object, object]]:
        """Field -> (mine, the other's), for the fields that differ."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}


class ResolvedModel(_Frozen):
    """What `auto` and names came to, as an actor saw it. `memory_bytes` is an estimate."""

    id: str
    commit: str | None
    weights_digest: str
    device: str
    dtype: str
    no_repeat_ngram_size: int
    ngram_mode: NgramMode = "reference"
    slots: int | None = None
    memory_bytes: int | None = None


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
        image_column=spec.image_column,
        image_member=spec.image_member,
        carry=spec.carry,
        metadata=spec.metadata,
    )


class JobRecord(_Frozen):
    """The content of `job.json`: written once, by the first run, and checked by every later one.

    `source` is the dataset that this one was made from, None where it was made from images.
    `ignored` is what lay under the input and was not read.
    """

    spec: JobSpec
    model: ResolvedModel
    identity: Identity
    fingerprint: str
    software: dict[str, str]
    created_at: str
    source: str | None = None
    ignored: tuple[Ignored, ...] = ()

    def slots_of(self, spec: JobSpec) -> int:
        """Of each actor, as the first one came to; one with less memory may take fewer."""
        return spec.slots or self.model.slots or 16

    def asks_for_model_of(self, spec: JobSpec) -> bool:
        """Whether `spec` names the model in the same words, so that it comes to the same.

        Other slots, and graphs, are tried out as another model is: they may be too many, or for
        another device.
        """
        sampler = ("no_repeat_ngram_size", "ngram_mode", "grammar")
        words = ("model", "device", "dtype", *sampler, "slots", "cuda_graph")
        return all(getattr(self.spec, word) == getattr(spec, word) for word in words)
