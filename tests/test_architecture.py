"""Who may import whom, and what the public face is."""

import ast
from pathlib import Path

import pytest

import kosmos2_core

ROOT = Path(__file__).parent.parent
PACKAGES = ("kosmos2_core", "pipeline", "jobs")
FORBIDDEN = {
    "kosmos2_core": {"pipeline", "jobs", "ray", "pyarrow", "fsspec", "s3fs", "pandas", "cyclopts"},
    "pipeline": {"jobs", "cyclopts", "rich"},
    "jobs": set[str](),
}
RAY_MODULES = {
    "pipeline/execution/cluster.py",
    "pipeline/exports/parallel.py",
    "pipeline/execution/graph.py",
    "pipeline/execution/metrics.py",
    "pipeline/execution/annotate_actor.py",
    "pipeline/driver/run.py",
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_downwards(package: str) -> None:
    for path in modules(package):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert not tops & FORBIDDEN[package], path


def test_ray_is_in_few_modules() -> None:
    using = {
        str(path.relative_to(ROOT))
        for path in modules("pipeline")
        if any(name.partition(".")[0] == "ray" for name in imported(path))
    }
    assert using == RAY_MODULES


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


def test_public_names_of_the_core_can_be_imported() -> None:
    assert kosmos2_core.__all__ == sorted(kosmos2_core.__all__, key=_as_ruff_sorts)
    for name in kosmos2_core.__all__:
        assert getattr(kosmos2_core, name) is not None


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name
