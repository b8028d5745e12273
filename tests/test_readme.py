"""What the documents say is so."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import COMMANDS as PROGRAM
from jobs.cli import app
from kosmos2_core.annotation import Issue
from kosmos2_core.prompts.tasks import PLAIN, PLAIN_DETAILED, TASKS
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.dataset import layout
from pipeline.exit_codes import ExitCode
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.schema import ANNOTATION, BOX, ENTITY, REJECTION
from pipeline.storage import open_output
from tests.support import cli_page
from tests.support.committing import A, committer, outcomes, shard_table
from tests.support.documents import (
    COMMANDS,
    DOCUMENTS,
    ROOT,
    anchors,
    fenced,
    rows_under,
    words,
)
from tests.support.locally import without_ray

OURS = [command for command in COMMANDS if command.startswith("kosmos2 ")]
_PART_OF_ONE = "kosmos2 export --score joint"
PAGES = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "docs" / "cli.md"]
OUTPUT_PAGE = (ROOT / "docs" / "output.md").read_text()
OUR_PACKAGES = ("kosmos2_core", "pipeline", "jobs")
SCENE = make_scene(7, 0, objects=(1, 2))
# Flags in the text that belong to other programs.
FLAGS_OF_OTHERS = {
    *("--metrics-export-port", "--labels"),  # Ray
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("command", [command for command in OURS if command != _PART_OF_ONE])
def test_command_of_a_document_is_one_that_the_command_line_takes(command: str) -> None:
    """tests/e2e/test_commands_of_documents.py runs those that can run here."""
    app.parse_args(words(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_commands_and_flags_that_the_text_names_exist(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    flags = {flag for code in re.findall(r"`(--[^`]+)`", text) for flag in _flags(code)}
    assert flags <= _flags(cli_page.PATH.read_text()) | FLAGS_OF_OTHERS
    names = re.findall(r"`kosmos2 ((?:evaluate |bench |model |review )?[a-z0-9]+)", text)
    assert [name for name in names if name not in PROGRAM] == []


def _flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_readme_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_readme_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a drawn scene, with the embedded model."""
    monkeypatch.chdir(tmp_path)
    Path("snowman.jpg").write_bytes(encode_jpeg(SCENE, 90))
    _run_example_of_readme("Annotator")
    assert capsys.readouterr().out.startswith(SCENE.caption)


def test_readme_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Ray: tests/e2e/test_python.py runs a job of docs/python.md on it."""
    monkeypatch.chdir(tmp_path)
    without_ray(monkeypatch)
    Path("photos").mkdir()
    Path("photos", "a.jpg").write_bytes(encode_jpeg(SCENE, 90))
    _run_example_of_readme("JobSpec")
    assert Path("out", "_SUCCESS.json").exists()
    assert capsys.readouterr().out.startswith(f"{SCENE.caption} [(")


def _run_example_of_readme(name: str) -> None:
    [example] = [code for code in fenced("python") if name in code]
    exec(compile(_with_embedded_model(example), "README.md", "exec"), {})


def _with_embedded_model(code: str) -> str:
    return code.replace("microsoft/kosmos-2-patch14-224", "shapes")


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_python_of_a_document_uses_names_that_exist(path: Path) -> None:
    imported: dict[str, Any] = {}
    for code in fenced("python", path.read_text()):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OUR_PACKAGES):
                module = importlib.import_module(node.module or "")
                imported |= {each.name: getattr(module, each.name) for each in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id not in imported or hasattr(imported[node.value.id], node.attr)


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_in_the_index() -> None:
    links = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text())
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(links) == sorted(pages - {"README.md"})


def test_page_of_commands_is_what_the_program_says() -> None:
    """`make docs` writes it anew."""
    assert cli_page.PATH.read_text() == cli_page.page()


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("## Columns of `annotations/`", ANNOTATION),
        ("### Fields of an entity", ENTITY),
        ("### Fields of a box", BOX),
        ("## Rejects", REJECTION),
    ],
)
def test_output_page_has_every_column_with_its_type(
    heading: str, fields: pa.Schema | pa.StructType
) -> None:
    assert [(name, kind) for name, kind, _ in rows_under(heading, OUTPUT_PAGE)] == [
        (f"`{field.name}`", _type_in_words(field)) for field in fields
    ]


def _type_in_words(field: pa.Field) -> str:
    words = {ENTITY: "entity", BOX: "box"}
    kind = field.type
    if pa.types.is_list(kind):
        kind = kind.value_type
        return f"list of {words.get(kind, str(kind).replace('halffloat', 'float16'))}"
    return f"{kind} or null" if field.nullable else str(kind)


def test_output_page_has_the_metadata_of_a_commit(tmp_path: Path) -> None:
    store = open_output(str(tmp_path))
    outcomes(committer(store), shard_table(A, samples=2))
    [file] = (tmp_path / "annotations").iterdir()
    said = {key.decode() for key in pq.read_metadata(file).metadata if key.startswith(b"kosmos2.")}
    rows = rows_under("## Metadata of the Parquet files", OUTPUT_PAGE)
    always = {f"kosmos2.{key.strip('`')}" for key, text in rows if not _is_for_some(text)}
    assert said == always


def _is_for_some(text: str) -> bool:
    return text.startswith(("only after", "not for tars"))


def test_output_page_has_every_file_of_the_layout() -> None:
    rows = [name for name, _ in rows_under("## Files of a dataset", OUTPUT_PAGE)]
    keys = [
        *(layout.RECORD_KEY, layout.SUCCESS_KEY, layout.DERIVED_KEY),
        *(layout.PLANS, layout.LISTINGS, layout.ANNOTATIONS, layout.REJECTS, layout.FAILURES),
        *(layout.SUMMARIES, layout.REPLACED, layout.LEASES, layout.stop_key("")),
        *(layout.PUBLICATIONS, layout.REVIEWS, layout.ACTOR_TIMES),
        *(layout.DEDUP_ROUNDS, layout.LOOKS),
    ]
    assert [key for key in keys if not any(row.startswith(f"`{key}") for row in rows)] == []
    assert [row for row in rows if not row.strip("`").startswith(tuple(keys))] == []


def test_operations_page_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [int(code) for code, *_ in rows_under("## Exit codes", page)] == list(ExitCode)


def test_exports_page_has_every_format() -> None:
    page = (ROOT / "docs" / "exports.md").read_text()
    named = re.findall(r"^\| `([a-z][a-z-]*)` \|", page, flags=re.M)
    assert named == [*EXPORT_FORMATS, *EXPORT_FORMATS]  # what each is, and how to load it


def test_tasks_page_has_every_task_and_its_prompt() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    for task in TASKS.values():
        assert f"`{task.name}`" in page
        assert f"`{task.prompt}`" in page or task in (PLAIN, PLAIN_DETAILED)
        assert all(f"`{name}`" in page for name in task.fields)


def test_every_issue_says_what_it_means() -> None:
    source = (ROOT / "kosmos2_core" / "annotation.py").read_text()
    for issue in Issue:
        assert re.search(rf'"{issue}"  # \S', source)
