"""What is submitted, and how the end of a submitted job is told."""

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from ray._private.runtime_env.packaging import create_package

from jobs.cli import app, run_command
from jobs.remote import job_server
from jobs.remote import verdict as verdicts
from jobs.remote.job_server import IdTaken, JobServer, JobServerError, SubmittedJob
from jobs.remote.submission import Submission, submission_of
from pipeline.dataset.status import Outcome, outcome_of
from pipeline.errors import ObjectMissing, SpecError
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec
from pipeline.spec.partition import Partition
from pipeline.version import checkout
from tests.support.commits import write_dataset
from tests.support.s3 import free_ports
from tests.support.tars import an_annotation, pictures

SECRET = "wJalrXUtnFEMI"
SPEC = JobSpec(input="s3://a/in/", output="s3://a/out")


def submission(spec: JobSpec = SPEC, **changes: Any) -> Submission:
    how: dict[str, Any] = {"is_installed": False, "pass_env": (), "log_format": "text"}
    return submission_of(spec, attempt=3, **{**how, **changes})


# ---- what is submitted


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"task": ("detailed",), "include": ("*.tar", "a b*"), "exclude": ("-x", "--y=z", "'")},
        {"actors": "2:64", "gpus_per_actor": 0.5, "slots": 8, "accelerator_type": "A100"},
        {"reader_label": ("pool=cpu",), "extend": True, "grammar": "strict", "limit": 3},
        {"partition": "1/4"},
        {"define": ({"name": "mine", "prompt": "How 'many' {a}?"},), "task": ("mine:a=b",)},
        {"carry": ("url,n:int64",), "metadata": "a,b", "input_format": "files"},
        {"stall_timeout_s": 1.5, "max_reject_rate": 0.0, "no_repeat_ngram_size": 0},
        {"input_profile": "p", "output_endpoint_url": "http://b:1", "device": "cpu"},
    ],
)
def test_the_entrypoint_asks_for_the_same_job(options: dict[str, Any]) -> None:
    spec = JobSpec(input="s3://a/in/", output="s3://a/out", **options)
    command, bound, _ = app.parse_args(
        list(submission(spec).arguments), exit_on_error=False, print_error=False
    )
    assert command.__name__ == "annotate_command"
    given = bound.arguments
    said = given["options"].model_dump() if "options" in given else {}
    assert JobSpec(input=given["input"], output=given["output"], **said) == spec


def test_jobs_that_do_a_part_each_have_a_name_each() -> None:
    names = [
        submission(JobSpec(input="s3://a/in/", output="s3://a/out", partition=part)).id
        for part in ("0/1", "0/4", "1/4")
    ]
    assert names == [names[0], f"{names[0][:-2]}-0-of-4-3", f"{names[0][:-2]}-1-of-4-3"]


def test_the_code_is_shipped_or_installed() -> None:
    shipped, installed = submission(), submission(is_installed=True)
    assert shipped.entrypoint.startswith("python -m jobs.cli annotate s3://a/in/ s3://a/out")
    assert shipped.runtime_env()["working_dir"] == str(checkout())
    assert installed.entrypoint.startswith("kosmos2 annotate s3://a/in/ s3://a/out")
    assert "working_dir" not in installed.runtime_env()


def test_nothing_else_of_a_checkout_is_shipped(tmp_path: Path) -> None:
    """By Ray's own packager; without it, `excludes` would be but words."""
    root, package = tmp_path / "checkout", tmp_path / "package.zip"
    for name in (".env", ".git/config", ".venv/a", "demo/x.tar", "tests/a.py", "jobs/.env", "id"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(SECRET)
    for name in (
        "jobs/cli.py",
        "pipeline/exports/a.jinja",
        "kosmos2_core/shapes/b",
        "jobs/__pycache__/c",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("code")
    shutil.copy(checkout() / "pyproject.toml", root)
    excludes = submission().runtime_env()["excludes"]
    create_package(str(root), package, include_gitignore=True, excludes=excludes)
    with ZipFile(package) as found:
        files = {name for name in found.namelist() if not name.endswith("/")}
    assert files == {
        *("jobs/cli.py", "pipeline/exports/a.jinja", "kosmos2_core/shapes/b", "pyproject.toml")
    }


def test_relative_paths_are_those_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    local = submission(JobSpec(input="in/", output="out", model="model", reuse=("earlier",)))
    assert local.arguments[1:5] == (
        f"{tmp_path}/in/",
        f"{tmp_path}/out",
        f"--model={tmp_path}/model",
        f"--reuse={tmp_path}/earlier",
    )


def test_the_embedded_model_is_no_folder_of_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    assert JobSpec(input="in", output="out").seen_from_elsewhere().model == "shapes"


def test_a_variable_is_passed_on_request_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    assert SECRET not in json.dumps(submission().runtime_env())
    passing = submission(pass_env=("MY_SECRET",))
    assert passing.runtime_env()["env_vars"]["MY_SECRET"] == SECRET
    assert SECRET not in json.dumps(passing.shown()) + repr(passing) + passing.entrypoint
    with pytest.raises(SpecError, match="--pass-env NOT_SET"):
        submission(pass_env=("NOT_SET",))


def test_dry_run_needs_no_cluster_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    arguments = ["submit", "s3://a/in/", "s3://a/out", "--limit", "2", "--address", nobody]
    assert run_command([*arguments, "--pass-env", "MY_SECRET", "--dry-run"]) == 0
    printed = capsys.readouterr()
    shown = json.loads(printed.out)
    assert shown["entrypoint"].endswith("--limit=2")
    assert shown["submission_id"].endswith("-1")
    assert nobody in printed.err
    assert SECRET not in printed.out + printed.err
    assert run_command(arguments) == ExitCode.ERROR
    assert f"no job server answers at {nobody}" in " ".join(capsys.readouterr().err.split())


# ---- one at a time


class Server:
    """In place of a cluster's: it has these jobs, and lets somebody else be faster once."""

    def __init__(
        self, jobs: dict[int, SubmittedJob], *, faster: SubmittedJob | None = None
    ) -> None:
        self.address = "http://head:8265"
        self.jobs, self.faster = jobs, faster
        self.submitted: list[Submission] = []

    def attempts(self, name: str) -> dict[int, SubmittedJob]:
        return self.jobs

    def submit(self, submission: Submission) -> None:
        if self.faster is not None:
            self.jobs[submission.attempt], self.faster = self.faster, None
            raise IdTaken("already exists")
        self.submitted.append(submission)

    def job(self, submission_id: str) -> SubmittedJob:
        return a_job(submission_id, "RUNNING")


def a_job(submission_id: str, state: str) -> SubmittedJob:
    return SubmittedJob(id=submission_id, state=state, entrypoint="kosmos2", exit_code=None)


@pytest.mark.parametrize(
    ("jobs", "faster", "submitted"),
    [
        ({}, None, [1]),
        ({1: a_job("k-1", "FAILED"), 4: a_job("k-4", "STOPPED")}, None, [5]),
        ({1: a_job("k-1", "RUNNING")}, None, []),
        ({1: a_job("k-1", "SUCCEEDED"), 2: a_job("k-2", "PENDING")}, None, []),
        ({}, a_job("k-1", "PENDING"), []),
        ({}, a_job("k-1", "FAILED"), [2]),
    ],
    ids=["first", "next", "running", "pending", "faster", "faster and failed"],
)
def test_a_running_job_is_found_and_not_started_twice(
    jobs: dict[int, SubmittedJob],
    faster: SubmittedJob | None,
    submitted: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(dict(jobs), faster=faster)
    monkeypatch.setattr("jobs.remote.job_server.JobServer", lambda address: server)
    assert run_command(["submit", SPEC.input, SPEC.output, "--detach"]) == 0
    assert [each.attempt for each in server.submitted] == submitted


class Client:
    """In place of Ray's: each look at the log breaks off, but the last."""

    def __init__(self, *looks: list[str]) -> None:
        self.looks = list(looks)

    async def tail_job_logs(self, submission_id: str) -> Any:
        for piece in self.looks.pop(0):
            yield piece
        if self.looks:
            raise RuntimeError("WebSocket connection closed unexpectedly")


def test_a_log_is_taken_up_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer.__new__(JobServer)
    server._client = Client(["on", "e\nt"], [], ["one\ntw", "o\n"])
    monkeypatch.setattr(JobServer, "job", lambda self, submission_id: a_job("k-1", "FAILED"))
    monkeypatch.setattr(job_server, "_POLL_S", 0)
    assert "".join(server.log("k-1")) == "one\ntwo\n"


def test_a_log_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    server = JobServer.__new__(JobServer)
    server._client = Client([], [], [])
    monkeypatch.setattr(job_server, "_LOST_S", -1)
    with pytest.raises(JobServerError, match="unexpectedly"):
        list(server.log("k-1"))


# ---- how it ended


def outcome(**changes: Any) -> Outcome:
    whole = {"shards_wanted": 3, "shards_committed": 3, "shards_failed": 0}
    return Outcome(**{**whole, "is_mostly_rejects": False, **changes})


@pytest.mark.parametrize(
    ("driver", "storage", "code"),
    [
        (0, outcome(), ExitCode.DONE),
        (None, outcome(), ExitCode.DONE),  # killed after its last commit
        (-9, outcome(), ExitCode.DONE),
        (0, outcome(shards_committed=1), ExitCode.ERROR),  # Ray's SUCCEEDED, and killed
        (None, outcome(shards_committed=1, shards_failed=1), ExitCode.ERROR),
        (-9, outcome(shards_committed=2, shards_failed=1), ExitCode.SHARDS_FAILED),
        (0, outcome(is_mostly_rejects=True), ExitCode.SHARDS_FAILED),
        (1, outcome(), ExitCode.ERROR),
        (2, outcome(), ExitCode.USAGE),  # refused, on an output that is complete
        (3, outcome(shards_committed=2), ExitCode.SHARDS_FAILED),
        (4, outcome(), ExitCode.HELD),
        (5, outcome(shards_committed=0), ExitCode.STALLED),
        (7, outcome(shards_committed=1), ExitCode.STOPPED),
        (0, ObjectMissing("no"), ExitCode.DONE),
        (None, ObjectMissing("no"), ExitCode.ERROR),
        (-9, ObjectMissing("no"), ExitCode.ERROR),
    ],
)
def test_the_end_is_told_by_the_driver_or_by_storage(
    driver: int | None,
    storage: Outcome | Exception,
    code: ExitCode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(spec: JobSpec) -> Outcome:
        if isinstance(storage, Exception):
            raise storage
        return storage

    monkeypatch.setattr(verdicts, "outcome_of", found)
    assert verdicts.verdict_on(SPEC, driver_exit_code=driver).exit_code == code


@pytest.mark.parametrize(("limit", "code"), [(None, None), (1, ExitCode.DONE)])
def test_storage_tells_of_the_shards_that_were_asked_for(
    tmp_path: Path, limit: int | None, code: ExitCode | None
) -> None:
    write_dataset(
        tmp_path,
        {"a.tar": (pictures(2), [[an_annotation()]] * 2), "b.tar": (pictures(1), None)},
    )
    spec = JobSpec(input=str(tmp_path / "in"), output=str(tmp_path / "out"), limit=limit)
    assert outcome_of(spec).exit_code == code


def test_storage_tells_of_the_part_that_was_asked_for(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        {"a.tar": (pictures(2), [[an_annotation()]] * 2), "b.tar": (pictures(1), None)},
    )
    spec = JobSpec(input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    parts = [
        outcome_of(spec.model_copy(update={"partition": Partition(index=i, of=2)}))
        for i in range(2)
    ]
    assert sum(part.shards_wanted for part in parts) == 2
    assert sum(part.shards_committed for part in parts) == 1
