"""What the house keeps: who may import whom, one meaning for each name, Ray in its place."""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kosmos2_core
import pipeline
from pipeline.version import our_version

ROOT = Path(__file__).parent.parent
PACKAGES = ("kosmos2_core", "pipeline", "jobs")
FORBIDDEN = {
    "kosmos2_core": {
        *("pipeline", "jobs", "ray", "pyarrow", "fsspec", "s3fs", "pandas", "cyclopts"),
        *("pydantic", "rich"),
    },
    "pipeline": {"jobs", "cyclopts", "rich"},
    "jobs": set[str](),
}
# The rooms of `pipeline`, from the ground up: each imports from floors below its own.
FLOORS = (
    {"columns", "costs", "limits"},
    {"concurrency", "errors", "exit_codes", "faults", "progress", "schema", "spacing", "version"},
    {"logs", "storage"},
    {"models", "parquet", "spec"},
    {"dataset", "formats"},
    {"plan", "reading"},
    {"review"},
    {"derived", "execution", "report"},
    {"comparison", "driver", "estimate", "exports", "verification"},
    {"datasets", "doctor"},
)
RAY_PRIVATE = "pipeline/execution/ray_private.py"
RAY = re.compile(
    r"pipeline/execution/[\w/]+\.py|jobs/remote/job_server\.py|jobs/bench/local_ray\.py"
)
# Names that modules of one kind share: what each export format is, and what a program begins with.
SHARED_NAMES = {"FORMAT", "main"}
MOST_FILES = 14


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a module imports, wherever in it, also for type checkers alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_downwards(package: str) -> None:
    for path in modules(package):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert not tops & FORBIDDEN[package], path


def test_rooms_of_the_pipeline_import_only_from_floors_below() -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    rooms = {path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py"): path
             for path in modules("pipeline")}  # fmt: skip
    assert floor_of.keys() == rooms.keys() - {"__init__"}
    for path in modules("pipeline"):
        room = path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")
        for name in imported(path):
            parts = name.split(".")
            other = parts[1] if parts[0] == "pipeline" and len(parts) > 1 else room
            if room != "__init__" and other in floor_of and other != room:
                assert floor_of[other] < floor_of[room], f"{named(path)} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_have_no_cycle(package: str) -> None:
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): {
            name for name in imported(path) if name.startswith(f"{package}.")
        }
        for path in modules(package)
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def public_names(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_means_one_thing() -> None:
    homes = defaultdict[str, list[str]](list)
    for package in PACKAGES:
        for path in modules(package):
            for name in set(public_names(path)):
                homes[name].append(named(path))
    several = {name: places for name, places in homes.items() if len(places) > 1}
    assert {name: several[name] for name in several.keys() - SHARED_NAMES} == {}


def test_docstrings_of_public_names_begin_as_sentences_do() -> None:
    """A reader who comes to the middle of a file knows nothing that "Of each" could go on from."""
    beginnings = {"Of", "What", "Those", "As", "So", "Whether"}

    def docstrings(node: ast.AST) -> Iterator[tuple[str, str]]:
        for child in getattr(node, "body", ()):
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                yield child.name, ast.get_docstring(child) or ""
                yield from docstrings(child)

    found = [
        f"{named(path)}: {name}"
        for package in PACKAGES
        for path in modules(package)
        for name, text in docstrings(ast.parse(path.read_text()))
        if text and text.split()[0].strip(".,:") in beginnings
    ]
    assert found == []


def test_ray_is_where_things_run_on_ray() -> None:
    for package in ("pipeline", "jobs"):
        for path in modules(package):
            if any(name.partition(".")[0] == "ray" for name in imported(path)):
                assert RAY.fullmatch(named(path)), path


def test_what_ray_does_not_promise_is_used_in_one_file() -> None:
    private = re.compile(
        r"ray\.(\w+\.)*_(?!_version__)\w+|_internal_|map_batches_internal|ray\.experimental\b"
    )
    for package in ("pipeline", "jobs"):
        for path in modules(package):
            text = "\n".join([path.read_text(), *imported(path)])
            if named(path) != RAY_PRIVATE:
                assert not private.search(text), path
    assert private.search((ROOT / RAY_PRIVATE).read_text())


@pytest.mark.parametrize(
    "name",
    ["kosmos2_core", "pipeline", "pipeline.spec.job", "pipeline.execution.annotate.stage"],
)
def test_an_import_changes_nothing_of_its_process(name: str) -> None:
    code = (
        "import os, sys; before = dict(os.environ), sys.getswitchinterval()\n"
        f"import {name}\n"
        "assert (dict(os.environ), sys.getswitchinterval()) == before\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_job_on_local_files_imports_no_library_that_it_does_not_use() -> None:
    """Each process of a job pays for its imports: the driver, the readers, the actors.

    So do a command that shows images, and a benchmark whose device is not torch.
    """
    code = (
        "import sys, jobs.commands.annotate, pipeline.driver.run, pipeline.execution.read_task,"
        "pipeline.execution.annotate.actor, jobs.bench.jobs,"
        "jobs.commands.report, kosmos2_core.images.decode;"
        "print(*{'aiobotocore', 'aiohttp', 'duckdb', 'huggingface_hub', 's3fs', 'torch',"
        "'transformers'} & sys.modules.keys())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_holds_no_more_files_than_one_can_overlook(package: str) -> None:
    for folder in {path.parent for path in modules(package)}:
        files = [path for path in folder.iterdir() if path.is_file() and path.name != "py.typed"]
        assert len(files) <= MOST_FILES, folder


@pytest.mark.parametrize("face", [kosmos2_core, pipeline])
def test_public_names_can_be_imported(face: ModuleType) -> None:
    assert face.__all__ == sorted(face.__all__, key=_as_ruff_sorts)
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = face.nothing


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_the_version_is_that_of_the_project() -> None:
    assert pipeline.__version__ == our_version()
    said = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert said is not None
    assert said[1] == our_version()


def test_no_output_of_a_run_lies_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [name for name in tracked if name.startswith("out/") or name.endswith(".lock")] == []
