"""JobSpec: all that defines a run.

Options are declared here once; the command line's flags and help derive from them.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kosmos2_core.generation import CudaGraphMode, Generation, GrammarMode, NgramMode
from kosmos2_core.prompts.tasks import TASKS
from pipeline.spec.access import OutputAccess, StoreSettings
from pipeline.spec.fields import CarriedFields, FieldChoice
from pipeline.spec.kinds import InputKind
from pipeline.spec.partition import WHOLE, PartitionText
from pipeline.spec.resources import Actors, Placement, SpendingLimits
from pipeline.spec.tasks import TaskDefinition, TaskUse
from pipeline.storage import StorageOptions
from pipeline.storage.objects import check_endpoint, locate

_EMBEDDED = "shapes"  # name of a model, also where a folder has that name


class JobOptions(OutputAccess, Placement, SpendingLimits):
    """All options of a run except its input and output. Holds names, never credentials."""

    task: tuple[str, ...] = Field(
        ("brief",),
        description=f"Task to run on each image: {', '.join(TASKS)}. Repeat for several. Fill a "
        "field of a prompt from a field of the sample: ground:phrase=caption.",
    )
    define: tuple[TaskDefinition, ...] = Field(
        (),
        description="Definition of a task of your own, as JSON (see docs/tasks.md). Repeat for "
        "several.",
    )
    model: str = Field(
        _EMBEDDED,
        description="Model checkpoint: a Hub id (owner/name[@revision]), a directory, the URL of a "
        "folder (s3://, gs://, ...), or `shapes`, the embedded model for trials.",
    )
    device: str = Field(
        "auto",
        description="Device of the model: auto, cpu or cuda. auto uses CUDA if there is a GPU.",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="Data type of the model. auto: float32 on the CPU, float16 on CUDA.",
    )
    no_repeat_ngram_size: int | None = Field(
        None,
        ge=0,
        description="Length of the n-grams that may not repeat in an answer. 0 turns the rule off. "
        "Default: the checkpoint's setting.",
    )
    ngram_mode: NgramMode | None = Field(
        None,
        description="Tokens that the n-gram rule covers. reference: all tokens, tags and boxes "
        "too, as in Hugging Face. text: words only. Default: reference, or text with --grammar "
        "strict.",
    )
    grammar: GrammarMode = Field(
        "off",
        description="strict: decode well-formed phrases and boxes only, and flag answers that this "
        "changed with the issue `grammar_enforced`. off: decode freely.",
    )
    verify_boxes: bool = Field(
        False,
        description="Ground each phrase a second time on its own, and store how well its boxes "
        "agree as their `consistency`.",
    )
    exif: Literal["apply", "ignore"] = Field(
        "apply",
        description="apply: turn images upright by their EXIF orientation. ignore: use them as "
        "they are stored.",
    )
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="exact: decode images at full size. fast: decode large JPEGs at 1/2, 1/4 or "
        "1/8 of their size, which takes less time and changes pixels slightly.",
    )
    slots: int | None = Field(
        None,
        ge=1,
        description="Number of images that an actor decodes together. Default: as many as fit into "
        "memory.",
    )
    cuda_graph: CudaGraphMode = Field(
        "auto",
        description="auto: on CUDA, replay decode steps and image batches as CUDA graphs. off: run "
        "them operator by operator.",
    )
    limit: int | None = Field(None, ge=1, description="Annotate the first N shards only.")
    partition: PartitionText = Field(
        WHOLE,
        description="Annotate only part I of N, as I/N, counted from 0. N jobs with one output "
        "make one dataset.",
    )
    input_format: Literal["auto", InputKind] = Field(
        "auto",
        description="Kind of the input (see docs/inputs.md). auto: detect it.",
    )
    image_column: str | None = Field(
        None,
        description="Column that holds the images or their names, such as jpg or images.0. "
        "Default: detect it.",
    )
    image_member: str | None = Field(
        None,
        description="Member of a tar sample that holds its image, such as jpg or left.png. "
        "Default: detect it.",
    )
    samples_per_shard: int = Field(
        1000,
        ge=1,
        description="Target number of samples per shard for inputs that can be split (Parquet, "
        "image folders, manifests).",
    )
    allow_http: bool = Field(
        False,
        description="Download images from the http:// and https:// URLs of a manifest.",
    )
    carry: CarriedFields = Field(
        (),
        description="Fields of the samples to copy into columns of their own, as NAME or "
        "NAME:TYPE, separated by commas. Types: string, int64, double, bool.",
    )
    metadata: str = Field(
        "all",
        description="Fields of the samples to keep in the column `metadata`: all, none, or "
        "NAME,NAME,...",
    )
    include: tuple[str, ...] = Field(
        (),
        description="Glob pattern of input names to annotate. Repeat for several.",
    )
    exclude: tuple[str, ...] = Field(
        (), description="Glob pattern of input names to leave out. Repeat for several."
    )
    extend: bool = Field(
        False, description="Add the inputs that appeared after the job was planned."
    )
    skip_copies: bool = Field(
        False,
        description="Take the answers to an image from an earlier image with the same bytes, in "
        "this run or in the output, instead of computing them again.",
    )
    reuse: tuple[str, ...] = Field(
        (),
        description="Directory or URL of another dataset, made with the same settings: take the "
        "answers to its images from it. Repeat for several.",
    )
    max_reject_rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of rejected samples, from 0 to 1. A shard of 50 or more samples "
        "that exceeds it fails and is not committed.",
    )
    stall_timeout_s: float = Field(
        600,
        gt=0,
        description="Seconds without any progress after which the run ends with exit code 5.",
    )
    input_endpoint_url: str | None = Field(
        None,
        description="URL of the endpoint of the input's store. Default: from the environment.",
    )
    input_profile: str | None = Field(
        None, description="AWS profile for the input. Default: from the AWS environment."
    )
    input_storage_option: StoreSettings = Field(
        (),
        description="Setting of the input's store, as KEY=VALUE (see docs/clouds.md). Repeat for "
        "several.",
    )

    @field_validator("cuda_graph", mode="before")
    @classmethod
    def _graphs_as_a_word(cls, value: object) -> object:
        """YAML reads `off` as false; earlier records have true or false."""
        return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value

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
        """Options of generation. Raises ValueError for options that contradict each other."""
        names = [field.name for field in dataclasses.fields(Generation)]
        return Generation(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        self.generation  # noqa: B018 - it checks
        return self

    @property
    def input_storage(self) -> StorageOptions:
        return StorageOptions(
            endpoint_url=self.input_endpoint_url,
            profile=self.input_profile,
            settings=self.input_storage_option,
            allow_http=self.allow_http,
        )

    @property
    def looks_for_copies(self) -> bool:
        return self.skip_copies or bool(self.reuse)

    @property
    def tasks(self) -> tuple[TaskUse, ...]:
        own = {each.name: each.task for each in self.define}
        return tuple(TaskUse.parse(text, own) for text in self.task)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks, as in the column `task`."""
        return tuple(use.task.name for use in self.tasks)


class JobSpec(JobOptions):
    """The definition of a job: input, output, tasks and options. Contains no credentials.

    The fields are the options of `kosmos2 annotate`, with underscores; `docs/cli.md` and each
    field's `description` explain them. In Python `actors` can be a pair (minimum, maximum), and
    `tasks` is another name for `task`.

    Raises:
        ValidationError: A field is unknown or has a wrong value (pydantic's class, a ValueError).
            The message names the field.

    Example:
        >>> spec = JobSpec(input="photos/", output="out", tasks=["brief", "plain"], actors=(2, 8))
        >>> spec.task_names
        ('brief', 'plain')
        >>> spec.actors, spec.exif
        ((2, 8), 'apply')
    """

    input: str = Field(
        description="Directory, prefix of a bucket or fsspec URL of the images (docs/inputs.md)."
    )
    output: str = Field(
        description="Directory, or s3://, gs:// or az:// prefix of the dataset (docs/clouds.md)."
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_tasks(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tasks" in values:
            return {**{k: v for k, v in values.items() if k != "tasks"}, "task": values["tasks"]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Here, where flags and the job file have come together: one names what the other defines.

        Raises ValueError.
        """
        try:
            names = set(self.task_names)
        except LookupError as error:
            raise ValueError(f"task: {error}") from None
        if not names or len(names) != len(self.task):
            raise ValueError("task: name at least one task, each once")
        self.check_price()
        return self

    @model_validator(mode="after")
    def _copies_have_the_same_answers(self) -> Self:
        """Raises ValueError."""
        filled = [use.task.name for use in self.tasks if use.sources]
        if filled and self.looks_for_copies:
            option = "skip_copies" if self.skip_copies else "reuse"
            raise ValueError(
                f"{option}: the answers of the task {filled[0]} depend on a field of the sample "
                "and not only on its image; leave out the option, or the task"
            )
        return self

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        """All of this goes into job.json. Raises StorageUrlError."""
        for each in self.reuse:
            locate(each)
        check_endpoint(self.input_endpoint_url)
        check_endpoint(self.output_endpoint_url)
        locate(self.input)
        locate(self.output)
        return self

    def seen_from_elsewhere(self) -> Self:
        """Return the spec for processes that run in other folders.

        Returns:
            The same job, with absolute paths in place of relative ones.

        Example:
            >>> JobSpec(input="/photos", output="/data/../out").seen_from_elsewhere().output
            '/out'
        """
        changes: dict[str, Any] = {
            "input": _absolute(self.input),
            "output": _absolute(self.output),
            "reuse": tuple(map(_absolute, self.reuse)),
        }
        if self.model != _EMBEDDED and Path(self.model).is_dir():
            changes["model"] = os.path.abspath(self.model)
        return self.model_copy(update=changes)


def _absolute(uri: str) -> str:
    at = locate(uri)
    if at.scheme != "file":
        return uri
    return at.path + ("/" if uri.endswith("/") and at.path != "/" else "")


class RetryOptions(OutputAccess, SpendingLimits):
    """Options of `retry`. All other options are those of the job, from its `job.json`.

    The fields are the options of `kosmos2 retry`, with underscores; each field's `description`
    explains it.

    Raises:
        ValidationError: A field is unknown or has a wrong value, or `error_type` is given without
            `samples` (pydantic's class, a ValueError). The message names the field.

    Example:
        >>> options = RetryOptions(samples=True, error_type="corrupt_image")
        >>> options.actors is None  # as many as the job had
        True
    """

    samples: bool = Field(
        False,
        description="Retry rejected samples of committed shards, instead of failed shards. Samples "
        "that a retry cannot change are left out.",
    )
    error_type: str | None = Field(
        None, description="With --samples: retry all samples with this error type."
    )
    actors: Actors | None = Field(
        None, description="Number of model actors, as in `annotate`. Default: as in job.json."
    )
    max_reject_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest share of rejected samples, as in `annotate`. Default: as in job.json.",
    )

    @model_validator(mode="after")
    def _reasons_are_of_samples(self) -> Self:
        if self.error_type is not None and not self.samples:
            raise ValueError("--error-type chooses among rejected samples: add --samples")
        self.check_price()
        return self

    def applied_to(self, spec: JobSpec, output: str) -> JobSpec:
        """Return the spec of a job with these options.

        Args:
            spec: The spec from `job.json`.
            output: Directory or `s3://` prefix of the dataset now; it can differ from `spec`.

        Returns:
            The spec to run.
        """
        access = self.model_dump(include=set(OutputAccess.model_fields))
        limits = self.model_dump(include={"max_gpu_hours", "max_cost"})  # of this run alone
        names = {"actors", "max_reject_rate", "gpu_hour_cost"}
        given = self.model_dump(include=names, exclude_none=True)
        return JobSpec(**{**spec.model_dump(), **access, **limits, **given, "output": output})
