"""Ray's job server, through Ray's own client."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import exceptions
from ray.job_submission import JobDetails, JobSubmissionClient

from jobs.remote.submission import Submission
from kosmos2_core.errors import first_line
from pipeline.errors import PipelineError
from pipeline.execution.environment import token_source
from pipeline.execution.ray_private import job_server_version
from pipeline.execution.ray_version import check_cluster_version, check_own_version

_ADDRESS = "RAY_API_SERVER_ADDRESS"  # Ray lets it win over what a client is told
# They tell of files left out, packages sent, connections closed.
_TALKATIVE = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_POLL_S = 1.0
_LOST_S = 120.0  # a head that is gone for longer takes its jobs with it


class JobServerError(PipelineError):
    """Raised when no job server answers, or when it refuses. Check the address and try again."""

    code = "job_server"
    retriable = True


class IdTaken(PipelineError):
    """Raised when the submission id was used before. Follow the job that has it."""

    code = "id_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJob:
    """`state`: Ray's name of it. `exit_code`: the driver's, None if unknown."""

    id: str
    state: str
    entrypoint: str
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")


class JobServer:
    """Client of a job server. Every method raises JobServerError."""

    def __init__(self, address: str | None) -> None:
        """Connect. Raises SpecError if either side has a Ray that kosmos2 does not work with.

        `address`: http://head:8265 or a value of RAY_ADDRESS; None: as the environment says.
        """
        check_own_version()
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        if address is not None:
            os.environ[_ADDRESS] = address
        with _as_ours(address):
            self._client = JobSubmissionClient(address)
        version = job_server_version(self.address)
        if version is not None:
            check_cluster_version(version, self.address)

    @property
    def address(self) -> str:
        return str(self._client.get_address())

    def attempts(self, name: str) -> dict[int, SubmittedJob]:
        """Return all jobs ever submitted under that name, by the number of the attempt."""
        with _as_ours(self.address):
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.submission_id]
        return {
            int(number): job
            for job in jobs
            for prefix, _, number in [job.id.rpartition("-")]
            if prefix == name and number.isdecimal()
        }

    def job(self, submission_id: str) -> SubmittedJob:
        with _as_ours(self.address):
            return _job(self._client.get_job_info(submission_id))

    def submit(self, submission: Submission) -> None:
        """Submit a job. Raises IdTaken."""
        with _as_ours(self.address):
            self._client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=submission.id,
                runtime_env=submission.runtime_env(),
                metadata=dict(submission.metadata),
            )

    def log(self, submission_id: str) -> Iterator[str]:
        """Yield the job's log from its first line on, until the job is over.

        If the connection breaks, the log goes on where it broke off.
        """
        seen, last_answer = 0, time.monotonic()
        while True:
            try:
                position = 0
                for piece in _pieces(self._client.tail_job_logs(submission_id)):
                    new = piece[max(seen - position, 0) :]
                    position += len(piece)
                    seen = max(seen, position)
                    if new:
                        yield new
                if self.job(submission_id).is_over:
                    return
                last_answer = time.monotonic()
            except (JobServerError, RuntimeError, OSError) as error:
                if time.monotonic() - last_answer > _LOST_S:
                    raise JobServerError(
                        f"{submission_id} cannot be followed any more ({error}): the job may go "
                        "on, see `kosmos2 status`"
                    ) from error
            time.sleep(_POLL_S)


@contextmanager
def _as_ours(address: str | None) -> Iterator[None]:
    try:
        yield
    except exceptions.AuthenticationError as error:
        raise JobServerError(_refusal(address)) from error
    except (ConnectionError, OSError) as error:
        raise JobServerError(
            f"no job server answers at {address or 'RAY_ADDRESS, nor on this machine'}: name it "
            "with --address, as in http://head:8265"
        ) from error
    except RuntimeError as error:
        if "already exists" in str(error):
            raise IdTaken(first_line(error)) from error
        raise JobServerError(f"the job server refuses: {str(error).strip()[:500]}") from error


def _refusal(address: str | None) -> str:
    token = token_source()
    if token is None:
        why = "requires a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        why = "requires a token: set RAY_AUTH_MODE=token"
    else:
        why = f"refuses the token of {token}: set RAY_AUTH_TOKEN to that of the cluster"
    return f"the job server at {address} {why}"


def _job(details: JobDetails) -> SubmittedJob:
    return SubmittedJob(
        id=details.submission_id or "",
        state=str(details.status.value),
        entrypoint=details.entrypoint,
        exit_code=details.driver_exit_code,
    )


def _pieces(stream: AsyncIterator[str]) -> Iterator[str]:
    async def next_piece() -> str | None:
        return await anext(stream, None)

    with asyncio.Runner() as runner:
        try:
            while (piece := runner.run(next_piece())) is not None:
                yield piece
        finally:
            runner.run(_closed(stream))


async def _closed(stream: Any) -> None:
    await stream.aclose()
