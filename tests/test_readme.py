"""What the documents say is so."""

import re
from pathlib import Path

import pytest

from jobs.cli import app
from kosmos2_core.annotation import Issue
from kosmos2_core.prompts.tasks import PLAIN, PLAIN_DETAILED, TASKS
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.schema import ANNOTATION
from tests.support import cli_page
from tests.support.documents import COMMANDS, DOCUMENTS, README, ROOT, fenced, words

OURS = [command for command in COMMANDS if command.startswith("kosmos2 ")]
_PART_OF_ONE = "kosmos2 export --score joint"


@pytest.mark.parametrize("command", [command for command in OURS if command != _PART_OF_ONE])
def test_command_of_a_document_is_one_that_the_command_line_takes(command: str) -> None:
    """tests/e2e/test_commands_of_documents.py runs those that can run here."""
    app.parse_args(words(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_readme_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_readme_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the embedded default and a drawn scene for what cannot be had here."""
    monkeypatch.chdir(tmp_path)
    scene = make_scene(7, 0, objects=(1, 2))
    Path("snowman.jpg").write_bytes(encode_jpeg(scene, 90))
    example = fenced("python")[0].replace("microsoft/kosmos-2-patch14-224", "shapes")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(scene.caption)


def test_readme_names_every_column() -> None:
    table = README.partition("## What comes out")[2].partition("##")[0]
    assert {name for name in ANNOTATION.names if f"`{name}`" not in table} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("docs/architecture.md", 120)])
def test_document_is_short_enough_to_be_read(name: str, most: int) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= most


def test_page_of_commands_is_what_the_program_says() -> None:
    """`make docs` writes it anew."""
    assert cli_page.PATH.read_text() == cli_page.page()


def test_exports_page_has_every_format() -> None:
    page = (ROOT / "docs" / "exports.md").read_text()
    assert re.findall(r"^\| `([a-z][a-z-]*)` \|", page, flags=re.M) == list(EXPORT_FORMATS)


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
