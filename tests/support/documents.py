"""The documents, and the commands that they show: in blocks of `sh` and in `code` of the text."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    # docs/cli.md is the program's own help: tests/test_readme.py compares them.
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "cli.md"),
    ROOT / "kosmos2_core" / "shapes" / "checkpoint" / "README.md",
]
# What a command in the text begins with, and something has to follow.
_PROGRAMS = r"kosmos2|make|docker|kubectl|aws|ray|apt-get|python|\.venv/bin/\w+|KOSMOS2_FAULTS=\S+"
_IN_TEXT = re.compile(rf"`((?:{_PROGRAMS}) [^`\n]+)`")
# Commands that need arguments: alone they are named, not shown.
_NEED_ARGUMENTS = (
    *("annotate", "submit", "plan", "status", "stop", "retry", "verify", "stats", "view", "report"),
    *(
        "model fetch",
        "filter",
        "dedup",
        "export",
        "publish",
        "sample",
        "evaluate flickr30k",
        "evaluate refcoco",
    ),
)
_NAMES = {f"kosmos2 {name}" for name in _NEED_ARGUMENTS}


def fenced(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def rows_under(heading: str, text: str) -> list[list[str]]:
    """Return the cells of the first table after a heading, without its first row."""
    section = re.split(r"^#+ ", text.partition(f"{heading}\n")[2], flags=re.M)[0]
    table = next(block for block in section.strip().split("\n\n") if block.startswith("| "))
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table.splitlines()[2:]]


def anchors(text: str) -> set[str]:
    """Return what GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines(text: str) -> Iterator[str]:
    """Of a block of commands, without comments; what goes over several lines is one."""
    text = re.sub(r"\\\n\s*", "", text)
    text = re.sub(r"<<(\w+)\n.*?\n\1$", r"<<\1", text, flags=re.S | re.M)
    for line in text.splitlines():
        if line := re.sub(r"(^|\s+)#.*", "", line):
            yield line


def commands(text: str) -> list[str]:
    """Each command of a document, as it is written."""
    in_blocks = [line for block in fenced("sh", text) for line in lines(block)]
    in_text = _IN_TEXT.findall(re.sub(r"```.*?```", "", text, flags=re.S))
    return [*in_blocks, *(command for command in in_text if command not in _NAMES)]


def words(command: str) -> list[str]:
    """Without what is the shell's."""
    found = shlex.split(command)
    return found[: found.index(">")] if ">" in found else found


# Each once.
COMMANDS = list(dict.fromkeys(line for page in DOCUMENTS for line in commands(page.read_text())))
