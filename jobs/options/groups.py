"""Arguments and flags that several commands share, each with its help and its panel."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from pydantic import BaseModel

from jobs.options.flags import as_flags
from pipeline.logs import LogFormat
from pipeline.spec.access import OutputAccess

if TYPE_CHECKING:
    from pipeline.datasets import Dataset

_Command = TypeVar("_Command", bound=Callable[..., int])

# Panel of the help -> the options that it shows. An option that is in none stands first.
PANELS = {
    "Tasks": "task define verify_boxes",
    "Model": "model device dtype slots cuda_graph grammar no_repeat_ngram_size ngram_mode",
    "Input": "input_format image_column image_member samples_per_shard exif decode include exclude "
    "extend allow_http input_endpoint_url input_profile input_storage_option",
    "Output": "carry metadata output_endpoint_url output_profile output_storage_option",
    "Destination": "dest_endpoint_url dest_profile dest_storage_option",
    "Ray resources": "actors drivers gpus_per_actor accelerator_type actor_label reader_label",
    "Behaviour": "limit partition skip_copies reuse max_reject_rate stall_timeout_s",
    "Costs": "gpu_hour_cost max_gpu_hours max_cost",
}
_GROUPS = {title: Group(title, sort_key=number) for number, title in enumerate(PANELS)}
PANEL_OF = {name: _GROUPS[title] for title, names in PANELS.items() for name in names.split()}

_DATASET = "Directory, or s3://, gs:// or az:// prefix of the dataset"

JobInput = Annotated[
    str | None,
    Parameter(help="Directory, prefix of a bucket or fsspec URL of the images (docs/inputs.md)."),
]
JobOutput = Annotated[str | None, Parameter(help=f"{_DATASET}.")]
ConfigFile = Annotated[
    Path | None,
    Parameter(
        help="YAML file with `input`, `output` and options. Flags take precedence over it.",
        group=_GROUPS["Behaviour"],
    ),
]
PrintConfig = Annotated[
    bool,
    Parameter(
        help="Print these options as a file for --config, and annotate nothing.",
        group=_GROUPS["Behaviour"],
    ),
]
LogFormatFlag = Annotated[
    LogFormat,
    Parameter(
        help="Format of the log on the standard error. json: one object per line, with job and "
        "shard.",
        group=_GROUPS["Behaviour"],
    ),
]

DatasetArgument = Annotated[str, Parameter(help=f"{_DATASET}, finished or not.")]
NewDatasetArgument = Annotated[
    str, Parameter(help="Directory, or s3://, gs:// or az:// prefix, of the new dataset.")
]

GpuHourCost = Annotated[
    float | None,
    Parameter(
        help="Price of one GPU hour, in any currency. Default: as in job.json.",
        validator=Number(gte=0),
    ),
]
AsJson = Annotated[bool, Parameter(help="Print one JSON object on the standard output.")]


def named_dataset(output: str, access: OutputAccess) -> "Dataset":
    """Open the dataset that a command names. Raises ObjectMissing, SpecError, StorageError."""
    from pipeline.datasets import Dataset

    return Dataset.open(
        output,
        endpoint_url=access.output_endpoint_url,
        profile=access.output_profile,
        storage_option=access.output_storage_option,
    )


def with_flags(command: _Command) -> _Command:
    """Make a flag of each field of the options that a command takes: of its parameter of a model.

    All flags have the defaults of their fields; so has the parameter, if every field has one.
    """
    defaults = dict(command.__kwdefaults__ or {})
    for name, hint in get_type_hints(command, include_extras=True).items():
        options, *others = get_args(hint) or (hint,)
        if isinstance(options, type) and issubclass(options, BaseModel):
            flags = as_flags(options, PANEL_OF)
            command.__annotations__[name] = Annotated[(flags, Parameter(name="*"), *others)]
            if not any(field.is_required() for field in options.model_fields.values()):
                defaults[name] = flags()
    command.__kwdefaults__ = defaults
    return command
