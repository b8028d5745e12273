"""The wheel in an empty environment, and what the page on installing names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployment import PROJECT, ROOT, pinned

INSTALL = (ROOT / "docs" / "install.md").read_text()


def core_requirements() -> list[str]:
    """Those that pyproject.toml lists under its comment `kosmos2_core`."""
    text = (ROOT / "pyproject.toml").read_text()
    section = re.search(r"# kosmos2_core\n(.*?)\n    # pipeline\n", text, re.S)
    assert section is not None
    return re.findall(r'"(.+?)"', section[1])


def test_the_page_names_what_the_core_needs() -> None:
    [line] = [each for each in INSTALL.splitlines() if each.startswith('pip install "hugging')]
    assert re.findall(r'"(.+?)"', line) == core_requirements()


def lowest_requirements() -> list[str]:
    """Each dependency in the lowest version that pyproject.toml allows, but for torch."""
    found = (re.fullmatch(r"(\S+?)>=([\d.]+)(,<.*)?", each) for each in PROJECT["dependencies"])
    lowest = [f"{each[1]}=={each[2]}" for each in found if each is not None]
    assert len(lowest) == len(PROJECT["dependencies"]), "each has a lower bound"
    return [each for each in lowest if not each.startswith("torch==")]


def test_each_dependency_has_a_lower_bound() -> None:
    assert "ray[data,default]==2.53" in lowest_requirements()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("versions", [[], lowest_requirements()], ids=["newest", "lowest"])
def test_the_wheel_works_in_an_empty_environment(versions: list[str], tmp_path: Path) -> None:
    """Without constraints.txt. torch is always of one version: its other builds are large."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    home, bin_ = tmp_path / "home", tmp_path / "env" / "bin"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(bin_ / command[0]), *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=home,
            env=environment,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run("pip", "install", "--quiet", "--no-deps", f"torch=={pinned('torch')}")
    run("pip", "install", "--quiet", str(wheel), *versions)
    run("pip", "check")
    assert run("kosmos2", "--version").strip() == PROJECT["version"]
    assert "contact sheet" in run("kosmos2", "demo", "--shards", "1", "--images", "8")
    assert "right" in run("kosmos2", "doctor")
