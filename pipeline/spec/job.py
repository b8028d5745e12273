"""JobSpec: all that defines a run.

Options are declared here once; the command line's flags and help derive from them.
"""

import dataclasses
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kosmos2_core.generation import Generation, GrammarMode, NgramMode
from kosmos2_core.prompts.tasks import TASKS
from pipeline.spec.access import OutputAccess
from pipeline.spec.fields import CarriedFields, FieldChoice
from pipeline.spec.kinds import InputKind
from pipeline.spec.partition import WHOLE, PartitionText
from pipeline.spec.resources import Actors, Placement
from pipeline.spec.tasks import TaskDefinition, TaskUse
from pipeline.storage import StorageOptions
from pipeline.storage.objects import check_endpoint, locate


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
    partition: PartitionText = Field(
        WHOLE,
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
    carry: CarriedFields = Field(
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
            carried=self.carry,
        )

    @property
    def generation(self) -> Generation:
        """Raises ValueError for options that contradict each other."""
        names = [field.name for field in dataclasses.fields(Generation)]
        return Generation(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        self.generation  # noqa: B018 - it checks
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
        """The names of the tasks, as in the column `task`."""
        return tuple(use.task.name for use in self.tasks)


class JobSpec(JobOptions):
    """All that defines a job.

    Fields are the options of `kosmos2 annotate`, by their names; `kosmos2 annotate --help` lists
    them. In Python `actors` may be a pair, and `tasks` is another name for `task`.

    Raises:
        ValidationError: pydantic's, naming the field and what is wrong with it.

    Example:
        >>> JobSpec(input="photos/", output="out", tasks=["brief", "detailed"], actors=(2, 8))
    """

    input: str = Field(description="Directory, s3:// prefix or any fsspec URL: docs/inputs.md.")
    output: str = Field(description="Directory or s3:// prefix of the dataset.")

    @model_validator(mode="before")
    @classmethod
    def _takes_tasks(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tasks" in values:
            return {**{k: v for k, v in values.items() if k != "tasks"}, "task": values["tasks"]}
        return values

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
        check_endpoint(self.input_endpoint_url)
        check_endpoint(self.output_endpoint_url)
        locate(self.input)
        locate(self.output)
        return self


class RetryOptions(OutputAccess):
    """Options of `retry`; all others are as `job.json` has them."""

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
