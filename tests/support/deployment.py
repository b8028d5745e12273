"""The files under infra/, read."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml

from jobs.cli import app
from pipeline.spec.job import JobSpec

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KUBERNETES_FILES = sorted((INFRA / "kubernetes").glob("*.yaml"))
NODES = ["head", "worker"]  # of infra/compose.yaml
DASHBOARD = json.loads((INFRA / "grafana" / "kosmos2.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
METRICS_SHOWN = set(re.findall(r"ray_kosmos2_\w+", " ".join(EXPRESSIONS)))


def objects() -> list[dict[str, Any]]:
    """Every Kubernetes object of every file."""
    return [found for path in KUBERNETES_FILES for found in yaml.safe_load_all(path.read_text())]


def the(kind: str) -> dict[str, Any]:
    [found] = [one for one in objects() if one["kind"] == kind]
    return found


def compose() -> dict[str, Any]:
    """With its references (`<<`, `*`) resolved, its variables not."""
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def statements(name: str) -> dict[str, dict[str, Any]]:
    """Of an IAM policy under infra/iam, by their Sid."""
    policy = json.loads((INFRA / "iam" / name).read_text())
    assert policy["Version"] == "2012-10-17"
    return {one["Sid"]: one for one in policy["Statement"]}


def pinned(package: str) -> str:
    """The version that constraints.txt has."""
    [version] = re.findall(
        rf"^{re.escape(package)}==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.M
    )
    return version


def annotate_in(entrypoint: str) -> JobSpec:
    """What an entrypoint runs, by the command line itself."""
    program, *arguments = shlex.split(entrypoint)
    assert program == "kosmos2"
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert command.__name__ == "annotate_command"
    given = bound.arguments
    return JobSpec(input=given["input"], output=given["output"], **given["options"].model_dump())
