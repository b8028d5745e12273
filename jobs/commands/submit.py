"""`kosmos2 submit`: the job on a cluster, followed from here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from jobs.remote.job_server import IdTaken, JobServer, JobServerError, SubmittedJob
from jobs.remote.submission import Submission, submission_of
from jobs.remote.verdict import verdict_on
from pipeline.exit_codes import ExitCode
from pipeline.logs import LogFormat
from pipeline.spec.job import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    address: str | None
    is_installed: bool
    pass_env: Sequence[str]
    log_format: LogFormat


def show_submission(spec: JobSpec, options: SubmitOptions) -> int:
    """Print what would be submitted; the attempt is a guess where no job server answers."""
    submission = _submission(spec, options)
    try:
        server = JobServer(options.address)
        found = server.attempts(submission.name)
        address: str | None = server.address
    except JobServerError as error:
        _say(f"{error}; this is how a first attempt would be")
        found, address = {}, None
    if (running := _running(found)) is not None:
        _say(f"{running.id} is at work on this output: nothing would be submitted")
    shown = replace(submission, attempt=max(found, default=0) + 1).shown()
    print(json.dumps({"address": address, **shown}, indent=2))
    return ExitCode.DONE


def submit_and_report(spec: JobSpec, options: SubmitOptions, *, is_waiting: bool) -> int:
    """The exit code of the job, or DONE at once unless `is_waiting`."""
    submission = _submission(spec, options)
    for name in submission.passed:
        _say(
            f"--pass-env {name}: whoever reaches the cluster can read it (dashboard, Ray's files); "
            "an identity of the cluster's own is safer"
        )
    server = JobServer(options.address)
    job = _submitted(server, submission)
    _say(f"kosmos2 status {spec.output}    shows how far it is; `kosmos2 stop` stops it")
    return _followed(server, job, spec) if is_waiting else ExitCode.DONE


def _submission(spec: JobSpec, options: SubmitOptions) -> Submission:
    return submission_of(
        spec,
        attempt=1,
        is_installed=options.is_installed,
        pass_env=options.pass_env,
        log_format=options.log_format,
    )


def _submitted(server: JobServer, submission: Submission) -> SubmittedJob:
    """The one that runs on this output already, or a new one."""
    while True:
        found = server.attempts(submission.name)
        if (running := _running(found)) is not None:
            _say(f"{running.id} is at work on this output already; nothing was submitted")
            if running.entrypoint != submission.entrypoint:
                _say(f"it was asked for something else: {running.entrypoint}")
            return running
        submission = replace(submission, attempt=max(found, default=0) + 1)
        try:
            server.submit(submission)
        except IdTaken:  # somebody else was faster: look what they run
            continue
        _say(f"submitted {submission.id} to {server.address}")
        return server.job(submission.id)


def _running(attempts: dict[int, SubmittedJob]) -> SubmittedJob | None:
    return next((job for job in attempts.values() if not job.is_over), None)


def _followed(server: JobServer, job: SubmittedJob, spec: JobSpec) -> ExitCode:
    for text in server.log(job.id):
        print(text, end="", flush=True)
    job = server.job(job.id)
    verdict = verdict_on(spec, driver_exit_code=job.exit_code)
    _say(f"{job.id}: exit code {int(verdict.exit_code)}: {verdict.reason}")
    return verdict.exit_code


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
