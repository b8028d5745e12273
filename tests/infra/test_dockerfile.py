"""The image. It cannot be built here: no Docker, no image registry."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.deployment import INFRA, PROJECT, ROOT

DOCKERFILE = (INFRA / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")
SENT = [  # to the builder, as .dockerignore has it
    line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
]


def test_linter_finds_nothing() -> None:
    path = INFRA / "Dockerfile"
    found = subprocess.run([HADOLINT, path], check=False, capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("", 0)


def test_only_public_image_is_an_exact_version_of_the_oldest_python_that_we_support() -> None:
    [version] = re.findall(r"^FROM python:(\d+\.\d+)\.\d+-slim-\w+ AS base$", DOCKERFILE, re.M)
    assert PROJECT["requires-python"] == f">={version}"
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", DOCKERFILE, re.M)
    known = {name for _, name in stages}
    assert [image for image, _ in stages if image not in known] == [stages[0][0]]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_target_runs_as_nobody_special(target: str) -> None:
    stage = re.split(r"^FROM ", DOCKERFILE.partition(f" AS {target}\n")[2], flags=re.M)[0]
    assert re.findall(r"^USER (\d+)$", stage, re.M) == ["10001"]
    assert "useradd --uid 10001" in DOCKERFILE


def test_targets_differ_in_torch_alone() -> None:
    *_, cpu, cuda = re.split(r"^FROM ", DOCKERFILE, flags=re.M)
    assert cpu.replace("cpu", "cuda").strip() == cuda.strip()


def test_every_install_is_pinned() -> None:
    for command in re.findall(r"pip install (.*(?:\\\n.*)*)", DOCKERFILE):
        assert "-c /src/constraints.txt" in command or "--no-deps" in command


def test_builder_gets_no_more_than_what_the_image_is_made_of() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    used = {*re.findall(r"/src/([\w./]+)", DOCKERFILE), PROJECT["readme"]}
    assert used <= set(SENT)
    assert set(SENT) - used == {"kosmos2_core", "pipeline", "jobs"}
    assert [name for name in SENT if not (ROOT / name).exists()] == []


def test_requirements_are_those_of_the_project() -> None:
    script = [sys.executable, INFRA / "requirements.py", ROOT / "pyproject.toml"]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == PROJECT["dependencies"]
    assert any("default" in line for line in printed if line.startswith("ray["))  # a node's


def test_what_the_builder_gets_makes_a_package_with_every_file(tmp_path: Path) -> None:
    """As the image's last step does it: from these files, without others, without the network."""
    tracked = _tracked(*SENT)
    for name in tracked:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes((ROOT / name).read_bytes())
    make = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*make, "--wheel-dir", tmp_path, tmp_path / "src"], check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    code = {name for name in tracked if name.split("/")[0] in ("kosmos2_core", "pipeline", "jobs")}
    assert len(code) > 50
    assert code - inside == set()
    assert {name.split("/")[0].rpartition(".")[2] for name in inside - code} == {"dist-info"}


def _tracked(*paths: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()
