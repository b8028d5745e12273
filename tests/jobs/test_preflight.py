"""What is found out before anything starts: no Ray, no model, no wait."""

import re
import time
from pathlib import Path

import pytest

from jobs.cli import run_command
from pipeline.exit_codes import ExitCode
from pipeline.storage import open_output, s3
from tests.support.s3 import free_ports
from tests.support.tars import pictures, tar

SOON_S = 20.0  # all the retries of one request take twice as long


@pytest.fixture
def bucket(s3_bucket: str) -> str:
    open_output(f"s3://{s3_bucket}").put("in/a.tar", tar(pictures(1)))
    return f"s3://{s3_bucket}"


def annotate(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run_command(["annotate", *arguments])
    return code, " ".join(capsys.readouterr().err.split())


def test_empty_input_is_named(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = annotate(f"{bucket}/nothing/", f"{bucket}/out", capsys=capsys)
    assert code == ExitCode.USAGE
    assert "/nothing/ has nothing to read" in said


@pytest.mark.parametrize("command", ["annotate", "plan"])
@pytest.mark.parametrize(
    "given",
    [
        {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"},
        {"AWS_ACCESS_KEY_ID": "half"},
        {"AWS_PROFILE": "unknown"},
        {},
    ],
    ids=["wrong", "half", "profile", "none"],
)
def test_credentials_are_asked_for(
    bucket: str,
    given: dict[str, str],
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    s3._file_system.cache_clear()  # a client keeps what it was made with
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    output = () if command == "plan" else (f"{bucket}/out",)
    code = run_command([command, f"{bucket}/in/", *output])
    said = capsys.readouterr()
    s3._file_system.cache_clear()
    assert code == ExitCode.USAGE
    assert {"AWS_ACCESS_KEY_ID", "profile"} & set(re.findall(r"\w+", said.out + said.err))


@pytest.mark.parametrize("side", ["input", "output"])
def test_endpoint_where_nobody_is_is_named_soon(
    bucket: str, side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    started = time.monotonic()
    code, said = annotate(
        f"{bucket}/in/", f"{bucket}/out", f"--{side}-endpoint-url", url, capsys=capsys
    )
    assert code == ExitCode.ERROR
    assert "check the network and the endpoint URL" in said
    assert time.monotonic() - started < SOON_S


def test_output_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    code, said = annotate(str(tmp_path), str(tmp_path / "out"), capsys=capsys)
    assert code != ExitCode.DONE
    assert f"{tmp_path}/out" in said
