"""docs/cli.md, made from the program: `make docs` writes it."""

from jobs.cli import COMMANDS, app_for
from tests.support.documents import ROOT

PATH = ROOT / "docs" / "cli.md"
_HEAD = """# All commands

Made from the program by `make docs`; `kosmos2 COMMAND --help` shows the same.
"""


def page() -> str:
    """The whole page. Each command has its own help, not its line of the list."""
    words = {word for command in COMMANDS for word in command.split()}
    found = app_for(sorted(words)).generate_docs(output_format="markdown", recursive=True)
    lines = found.partition("## Table of Contents")[2].splitlines()
    return _HEAD + "\n" + "\n".join(line.rstrip() for line in lines).strip() + "\n"


if __name__ == "__main__":
    PATH.write_text(page())
