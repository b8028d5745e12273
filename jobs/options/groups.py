"""Arguments and flags that several commands share, each with its help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.options.flags import with_text_fields
from pipeline.logs import LogFormat
from pipeline.spec.access import OutputAccess
from pipeline.spec.job import JobOptions, RetryOptions

_EACH_FIELD = Parameter(name="*")
_DATASET = "Directory or s3:// prefix of the dataset"

JobInput = Annotated[
    str | None, Parameter(help="Directory, s3:// prefix or any fsspec URL: docs/inputs.md.")
]
JobOutput = Annotated[str | None, Parameter(help=f"{_DATASET}.")]
ConfigFile = Annotated[
    Path | None,
    Parameter(help="YAML file with options of the job, `input` and `output`; flags win over it."),
]
if TYPE_CHECKING:
    JobFlags = JobOptions
    RetryFlags = RetryOptions
else:
    JobFlags = Annotated[with_text_fields(JobOptions), _EACH_FIELD]
    RetryFlags = Annotated[with_text_fields(RetryOptions), _EACH_FIELD]
LogFormatFlag = Annotated[
    LogFormat,
    Parameter(help="`json`: one object a line on the standard error, with job and shard."),
]

DatasetArgument = Annotated[str, Parameter(help=f"{_DATASET}, finished or not.")]
NewDatasetArgument = Annotated[str, Parameter(help="Directory or s3:// prefix of the new one.")]
AccessFlags = Annotated[OutputAccess, _EACH_FIELD]

AsJson = Annotated[
    bool, Parameter(help="Print one JSON object on the standard output, instead of text.")
]

# They are frozen: one object serves every command.
JOB_DEFAULTS = with_text_fields(JobOptions)()
RETRY_DEFAULTS = with_text_fields(RetryOptions)()
ACCESS_DEFAULTS = OutputAccess()
