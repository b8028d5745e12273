"""What `kosmos2 doctor` says: of healthy setups, and of broken ones."""

import json
import os
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.cli import run_command
from pipeline.doctor import compute, machine
from pipeline.doctor import setup as setups
from pipeline.doctor.checks import PARTS, check_setup
from pipeline.doctor.places import credentials
from pipeline.doctor.setup import JobSetup
from pipeline.errors import SpecError
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output, s3
from pipeline.storage.local_store import LocalStore
from pipeline.storage.outputs import probe
from tests.support.commits import write_dataset
from tests.support.locally import LocalTables
from tests.support.s3 import free_ports
from tests.support.tars import an_annotation, pictures, tar

SECRET = "wJalrXUtnFEMI"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """One actor fits; Ray itself is not started."""
    monkeypatch.setattr(setups, "RayTables", LocalTables)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar(pictures(2)))
    return tmp_path / "in"


def doctor(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit code, and what was said of each part that is wrong."""
    code = run_command(["doctor", *map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    body = json.loads(printed.out)
    assert [each["part"] for each in body["parts"]] == list(PARTS)
    wrong = {each["part"]: each["said"] for each in body["parts"] if each["state"] == "wrong"}
    assert body["is_right"] == (wrong == {})
    return code, wrong


# ---- healthy ones


def test_a_local_setup_is_right(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["doctor", str(images), str(tmp_path / "out")]) == ExitCode.DONE
    shown = " ".join(capsys.readouterr().out.split())
    for part in PARTS:
        assert part in shown
    assert "wrong" not in shown
    output = open_output(str(tmp_path / "out"))
    assert output.list("") + output.partials("") == []  # the probe is gone


def test_a_setup_on_s3_is_right_and_names_where_credentials_come_from(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_output(f"s3://{s3_bucket}").put("in/a.tar", tar(pictures(1)))
    places = [f"s3://{s3_bucket}/in/", f"s3://{s3_bucket}/out"]
    assert run_command(["doctor", *places, "--json"]) == ExitCode.DONE
    said = {each["part"]: each["said"] for each in json.loads(capsys.readouterr().out)["parts"]}
    assert said["credentials"] == "input: env, output: env"
    assert "1 objects" in said["input"]
    assert "conditional writes work" in said["output"]
    assert "as that of s3://" in said["clock"]


def test_without_places_they_are_skipped() -> None:
    setup = JobSetup(spec=JobSpec(input="a", output="b"), has_input=False, has_output=False)
    states = {each.part: each.state for each in check_setup(setup)}
    skipped = {part for part, state in states.items() if state == "skipped"}
    assert skipped - {"browser"} == {"credentials", "input", "output", "clock"}


# ---- broken ones

Break = Callable[[pytest.MonkeyPatch, Path], list[object]]


def _other_ray(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    patch.setattr("ray.__version__", "2.51.0")
    return [folder / "in", folder / "out"]


def _other_package(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    patch.setattr(machine, "our_requirements", lambda: ["numpy<1", "nothing-of-that-name"])
    return []


def _full_disk(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    patch.setattr(
        "pipeline.doctor.machine.shutil.disk_usage",
        lambda path: Usage(100 << 30, 99 << 30, 1 << 30),
    )
    return []


def _small_shared_memory(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    """As Docker gives it."""
    patch.setattr(machine, "_LEAST_FREE", 0)
    patch.setattr(
        "pipeline.doctor.machine.shutil.disk_usage", lambda path: Usage(64 << 20, 0, 64 << 20)
    )
    return []


def _no_input(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    return [folder / "nothing", folder / "out"]


def _output_of_filter(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    write_dataset(folder / "d", {"a.tar": (pictures(1), [[an_annotation()]])})
    places = [str(folder / "d" / "out"), str(folder / "derived")]
    assert run_command(["filter", *places, "--min-score", "0.5"]) == 0
    return [folder / "in", folder / "derived"]


def _output_without_conditions(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    def put(store: LocalStore, key: str, data: bytes) -> str:
        store.put(key, data)
        return "etag"

    patch.setattr(LocalStore, "create", put)
    patch.setattr(LocalStore, "probe", probe)  # its own needs none of these
    return [folder / "in", folder / "out"]


def _unreachable_output(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, SECRET)
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    patch.setattr(s3, "REACH_ATTEMPTS", 1)
    return [folder / "in", "s3://bucket/out", "--output-endpoint-url", url]


def _no_model(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    return ["--model", folder / "model"]


def _too_many_actors(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    def refuse(source: LocalTables, spec: JobSpec) -> None:
        raise SpecError("8 actors and one reader need 9 CPUs, but the cluster has 2")

    patch.setattr(LocalTables, "open", refuse)
    return ["--actors", "8"]


def _no_job_server(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    return ["--address", f"http://127.0.0.1:{free_ports(1)[0]}"]


def _old_job_server(patch: pytest.MonkeyPatch, folder: Path) -> list[object]:
    patch.setattr(compute, "job_server_version", lambda address: "2.9.3")
    return ["--address", "http://head:8265"]


@pytest.mark.parametrize(
    ("spoil", "part", "said"),
    [
        (_other_ray, "versions", "Ray 2.51.0 is installed here"),
        (_other_package, "versions", "is installed, but <1 is needed; nothing-of-that-name is not"),
        (_full_disk, "disk", "1.0 GiB of 100.0 GiB are free; free space there, or set RAY_TMPDIR"),
        (_small_shared_memory, "shared memory", "--shm-size"),
        (_no_input, "input", "nothing/: no such file or folder"),
        (_output_of_filter, "output", "filter"),
        (_output_without_conditions, "output", "does not honour If-None-Match"),
        (_unreachable_output, "output", "s3://bucket/out"),
        (_no_model, "model", "no checkpoint at"),
        (_too_many_actors, "resources", "need 9 CPUs, but the cluster has 2"),
        (_no_job_server, "resources", "no job server answers at http://127.0.0.1"),
        (_old_job_server, "resources", "head:8265 runs Ray 2.9.3"),
    ],
)
def test_a_broken_part_is_named_and_no_other(
    spoil: Break,
    part: str,
    said: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = spoil(monkeypatch, tmp_path)
    capsys.readouterr()
    code, wrong = doctor(*arguments, capsys=capsys)
    assert (code, list(wrong)) == (ExitCode.USAGE, [part]), wrong
    assert said in wrong[part]


@pytest.mark.parametrize(
    ("scheme", "environment", "option", "source"),
    [
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": SECRET}, None, "AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfs", {"AZURE_STORAGE_SAS_TOKEN": SECRET}, None, "AZURE_STORAGE_SAS_TOKEN"),
        ("az", {}, None, "azure-identity"),
        ("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": SECRET}, None, "GOOGLE_SERVICE_ACCOUNT_KEY"),
        ("gcs", {"GOOGLE_APPLICATION_CREDENTIALS": "f"}, None, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3", {"AWS_ACCESS_KEY_ID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}, None, "env"),
        *((scheme, {}, "anonymous=true", "none, as the option") for scheme in ("s3", "az", "gs")),
    ],
)
def test_the_source_of_credentials_is_named_for_each_cloud(
    scheme: str,
    environment: dict[str, str],
    option: str | None,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in list(os.environ):
        if name.startswith(("AZURE_", "GOOGLE_", "AWS_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = {"input_storage_option": (option,)} if option else {}
    spec = JobSpec(input=f"{scheme}://bucket/in", output="out", **options)
    said = credentials(JobSetup(spec=spec, has_input=True, has_output=True))
    assert said is not None
    assert said.startswith(f"input: {source}")
    assert SECRET not in said


@pytest.mark.parametrize("secret", ["", SECRET], ids=["none", "wrong"])
def test_credentials_that_are_missing_or_wrong(
    secret: str,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_output(f"s3://{s3_bucket}").put("in/a.tar", tar(pictures(1)))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret) if secret else monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3._file_system.cache_clear()  # a client keeps what it was made with
    code, wrong = doctor(f"s3://{s3_bucket}/in/", f"s3://{s3_bucket}/out", capsys=capsys)
    s3._file_system.cache_clear()
    assert code == ExitCode.USAGE
    assert {"input", "output"} <= wrong.keys()
    assert ("credentials" in wrong) == (not secret)


def test_a_clock_that_is_wrong(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_output(f"s3://{s3_bucket}").put("in/a.tar", tar(pictures(1)))
    away = datetime.now(UTC) + timedelta(minutes=20)
    monkeypatch.setattr(s3.S3, "clock", lambda store, at: away)
    code, wrong = doctor(f"s3://{s3_bucket}/in/", capsys=capsys)
    assert (code, list(wrong)) == (ExitCode.USAGE, ["clock"])
    assert "away from that of s3://" in wrong["clock"]
