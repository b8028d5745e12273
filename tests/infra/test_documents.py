"""The commands of docs/kubernetes.md, as far as they can be checked without running them."""

import re
import shlex

from jobs.cli import app
from tests.support.deployment import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
SCRIPTS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)).replace("\\\n", " ")


def test_commands_of_ours_are_ones_that_the_command_line_takes() -> None:
    ours = re.findall(r"(?:^|\s)kosmos2 ((?:annotate|status) .*)", SCRIPTS)
    assert len(ours) == 3
    for arguments in ours:
        app.parse_args(shlex.split(arguments, comments=True), exit_on_error=False)


def test_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"\binfra/[\w./-]*\w", PAGE)) - {"infra/.env"}
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
