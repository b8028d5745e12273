"""`kosmos2 submit`: run a job on a Ray cluster, and follow it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.options.groups import ConfigFile, JobInput, JobOutput, with_flags
from jobs.options.job_file import job_spec
from jobs.remote.submission import Submission, submission_of
from jobs.remote.verdict import verdict_on
from jobs.terminal import print_json, print_message
from pipeline.exit_codes import ExitCode
from pipeline.logs import LogFormat
from pipeline.spec.job import JobOptions, JobSpec

if TYPE_CHECKING:
    from jobs.remote.job_server import JobServer, SubmittedJob


@with_flags
def submit_command(
    input: JobInput = None,
    output: JobOutput = None,
    /,
    *,
    address: str | None = None,
    wait: Annotated[bool, Parameter(negative="--detach")] = True,
    installed: bool = False,
    pass_env: tuple[str, ...] = (),
    dry_run: bool = False,
    log_format: LogFormat = "text",
    config: ConfigFile = None,
    options: JobOptions,
) -> int:
    """Run `annotate` on a Ray cluster through its job server, and follow its log.

    ```
    kosmos2 submit s3://bucket/shards/ s3://bucket/out/ --address http://head:8265
    ```

    If a job is already writing OUTPUT, it is followed; no second job starts. The job reads and
    writes storage with the credentials of the cluster, not with those of this machine.

    Exit codes: as `annotate`. If the driver died without an exit code, OUTPUT decides.

    Parameters
    ----------
    address
        Address of the job server, such as http://head:8265. Default: RAY_API_SERVER_ADDRESS, then
        RAY_ADDRESS, then a cluster on this machine.
    wait
        Follow the job's log until it ends. --detach returns at once.
    installed
        Use the kosmos2 that is installed on the cluster, instead of uploading this one.
    pass_env
        Environment variable to pass to the job. Everybody with access to the cluster can read it.
        Repeat for several.
    dry_run
        Print what would be submitted, and submit nothing.
    log_format
        Format of the job's log. json: one object per line, with job and shard.
    """
    from jobs.remote.job_server import JobServer

    spec = job_spec(input, output, options, config)
    submission = submission_of(
        spec, attempt=1, is_installed=installed, pass_env=pass_env, log_format=log_format
    )
    if dry_run:
        return _show_submission(submission, address)
    for name in submission.passed:
        print_message(
            f"--pass-env {name}: everybody with access to the cluster can read it (dashboard, "
            "Ray's files); credentials of the cluster itself are safer"
        )
    server = JobServer(address)
    job = _submitted(server, submission)
    print_message(f"progress: kosmos2 status {spec.output}")
    print_message(f"to stop:  kosmos2 stop {spec.output}")
    return _followed(server, job, spec) if wait else ExitCode.DONE


def _show_submission(submission: Submission, address: str | None) -> int:
    """Print the submission. Its attempt is a guess where no job server answers."""
    from jobs.remote.job_server import JobServer, JobServerError

    try:
        server = JobServer(address)
        found, answers_at = server.attempts(submission.name), server.address
    except JobServerError as error:
        print_message(f"{error}; showing the submission of a first attempt")
        found, answers_at = {}, None
    if (running := _running(found)) is not None:
        print_message(f"{running.id} is already writing this output: nothing would be submitted")
    shown = replace(submission, attempt=max(found, default=0) + 1).shown()
    print_json({"address": answers_at, **shown})
    return ExitCode.DONE


def _submitted(server: "JobServer", submission: Submission) -> "SubmittedJob":
    """Return the job that runs on this output already, or submit a new one."""
    from jobs.remote.job_server import IdTaken

    while True:
        found = server.attempts(submission.name)
        if (running := _running(found)) is not None:
            print_message(f"{running.id} is already writing this output; nothing was submitted")
            if running.entrypoint != submission.entrypoint:
                print_message(f"its options differ from yours: {running.entrypoint}")
            return running
        submission = replace(submission, attempt=max(found, default=0) + 1)
        try:
            server.submit(submission)
        except IdTaken:  # somebody else was faster: look what they run
            continue
        print_message(f"submitted {submission.id} to {server.address}")
        return server.job(submission.id)


def _running(attempts: "dict[int, SubmittedJob]") -> "SubmittedJob | None":
    return next((job for job in attempts.values() if not job.is_over), None)


def _followed(server: "JobServer", job: "SubmittedJob", spec: JobSpec) -> ExitCode:
    for text in server.log(job.id):
        print(text, end="", flush=True)
    job = server.job(job.id)
    verdict = verdict_on(spec, driver_exit_code=job.exit_code)
    print_message(f"{job.id}: exit code {int(verdict.exit_code)}: {verdict.reason}")
    return verdict.exit_code
