"""Tokens at each end of the versions in pyproject.toml, each in an environment of its own."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.packages import install

ROOT = Path(__file__).parents[3]
_WITH_CUDA = "KOSMOS2_TEST_TORCH_WITH_CUDA"
_RUN = """
import json
from kosmos2_core.check.run import BLOCKS, CheckOptions, run_check
from tests.support.checks import TINY

blocks = [block for block in BLOCKS if block.name in ("machine", "tokens")]
print(json.dumps(run_check(CheckOptions(device="cpu"), str, extent=TINY, blocks=blocks).body()))
"""


def supported(package: str) -> tuple[str, str]:
    """Return the first and the last minor version of a range such as >=2.11,<2.16."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [named] = [each for each in project["dependencies"] if re.match(rf"{package}\b", each)]
    match = re.fullmatch(rf"{package}>=(\d+\.\d+),<(\d+)\.(\d+)", named)
    assert match is not None, named
    return match[1], f"{match[2]}.{int(match[3]) - 1}"


def checked(folder: Path) -> dict[str, object]:
    """Return the report of the token block with the packages of a folder."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    body: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return body


def assert_right(body: dict[str, object], package: str, version: str) -> None:
    assert body["versions"][package].startswith(f"{version}.")  # type: ignore[index]
    assert body["is_right"], body
    [_, tokens] = body["blocks"]  # type: ignore[misc]
    assert [each["wrong"] for each in tokens["figures"]["comparisons"]] == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("version", supported("transformers"))
def test_tokens_are_right_with_transformers(version: str, tmp_path: Path) -> None:
    """Its own dependencies come with it: earlier versions need an earlier huggingface-hub."""
    install(tmp_path, f"transformers=={version}.*")
    body = checked(tmp_path)
    assert_right(body, "transformers", version)
    is_mended = body["blocks"][1]["figures"]["is_oracle_mended"]  # type: ignore[index]
    assert is_mended == (version == "5.17")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", supported("torch"))
def test_tokens_are_right_with_torch(version: str, tmp_path: Path) -> None:
    """CPU builds. Those for CUDA compute on CPUs, too, but take 7 GB: a variable asks for them."""
    if _WITH_CUDA in os.environ:
        install(tmp_path, f"torch=={version}.*")
    else:
        install(tmp_path, "--no-deps", f"torch=={version}.0+cpu")
    assert_right(checked(tmp_path), "torch", version)
