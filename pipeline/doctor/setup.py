"""A setup to check: a job, and where it would run."""

from dataclasses import dataclass

from pipeline.driver.source import TableSource
from pipeline.execution.graph import RayTables
from pipeline.spec.job import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSetup:
    """A job, and where it would run.

    Attributes:
        spec: The job. Its input and output count only if `has_input` and `has_output` say so.
        has_input: Whether to check the input.
        has_output: Whether to check the output.
        job_server: Address of a job server that would get the job, such as http://head:8265.
            Otherwise the job runs on the cluster of RAY_ADDRESS, or on this machine.
    """

    spec: JobSpec
    has_input: bool = True
    has_output: bool = True
    job_server: str | None = None

    def open_source(self) -> TableSource:
        """Return what would run the job. Raises SpecError."""
        return RayTables()
