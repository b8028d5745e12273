"""The submission of a job to a job server."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.options.flags import flags_of
from jobs.remote.naming import job_name
from pipeline.errors import SpecError
from pipeline.logs import LogFormat
from pipeline.spec.job import JobOptions, JobSpec
from pipeline.version import JOB_VARIABLE, checkout, our_version

# All that a node needs of a checkout, and nothing else of it: no credentials, no data, no history.
_SHIPPED = ("/kosmos2_core", "/pipeline", "/jobs", "/pyproject.toml")
# "/." is the folder itself: without it Ray ships nothing at all, and says nothing.
_EXCLUDES = ("/*", "!/.", *(f"!{name}" for name in _SHIPPED), "__pycache__", ".env")
_HIDDEN = "(as in this environment)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to submit.

    `working_dir` None: the cluster's image has our code. `passed`: environment variables whose
    values go to the job and are never shown.
    """

    name: str
    attempt: int
    arguments: tuple[str, ...]
    working_dir: Path | None
    metadata: dict[str, str]
    passed: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        return f"{self.name}-{self.attempt}"

    @property
    def entrypoint(self) -> str:
        program = ["kosmos2"] if self.working_dir is None else ["python", "-m", "jobs.cli"]
        return shlex.join([*program, *self.arguments])

    def runtime_env(self) -> dict[str, Any]:
        """Return Ray's runtime environment, with the values of `passed`."""
        code = {"working_dir": str(self.working_dir), "excludes": list(_EXCLUDES)}
        return {
            **(code if self.working_dir is not None else {}),
            "env_vars": {JOB_VARIABLE: self.id, **self.passed},
        }

    def shown(self) -> dict[str, Any]:
        """Return the submission for people, without the values of `passed`."""
        environment = self.runtime_env()
        environment["env_vars"] |= dict.fromkeys(self.passed, _HIDDEN)
        return {
            "submission_id": self.id,
            "entrypoint": self.entrypoint,
            "runtime_env": environment,
            "metadata": self.metadata,
        }


def submission_of(
    spec: JobSpec,
    *,
    attempt: int,
    is_installed: bool,
    pass_env: Sequence[str],
    log_format: LogFormat,
) -> Submission:
    """Return the submission of `spec`. Raises SpecError for a variable that is not set."""
    spec = spec.seen_from_elsewhere()
    return Submission(
        name=job_name(spec.output, spec.partition),
        attempt=attempt,
        arguments=(
            *("annotate", spec.input, spec.output),
            *flags_of(spec, set(JobOptions.model_fields)),
            *(["--log-format=json"] if log_format == "json" else []),
        ),
        working_dir=None if is_installed else checkout(),
        metadata={"output": spec.output, "input": spec.input, "kosmos2_version": our_version()},
        passed={name: _value(name) for name in pass_env},
    )


def _value(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise SpecError(f"--pass-env {name}: there is no such variable here; set it") from None
