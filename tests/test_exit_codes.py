"""The table of exit codes in docs/operations.md has all of them, and what to do after each."""

import re
from pathlib import Path

import pytest

from pipeline.exit_codes import ExitCode

TEXT = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
SECTION = TEXT.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
ROWS = {
    int(code): (meaning, remedy)
    for code, meaning, remedy in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", SECTION, flags=re.M)
}
# Words of the meaning, so that two rows cannot be swapped.
MEANINGS = {
    ExitCode.DONE: "all done",
    ExitCode.ERROR: "other error",
    ExitCode.USAGE: "usage",
    ExitCode.SHARDS_FAILED: "shards failed",
    ExitCode.HELD: "another run",
    ExitCode.STALLED: "stalled",
    ExitCode.DEFECTS: "`verify` found",
    ExitCode.STOPPED: "on request",
    ExitCode.CLOSED_PIPE: "standard output",
}
REMEDY = re.compile(r"nothing$|look at|correct|follow|run the same command|names|`kosmos2 \w+ OUT`")


def test_the_table_has_the_exit_codes_and_no_other() -> None:
    assert list(ROWS) == [code.value for code in ExitCode] == [code.value for code in MEANINGS]


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_the_table_says_what_a_code_means_and_what_to_do(code: ExitCode) -> None:
    meaning, remedy = ROWS[code.value]
    assert MEANINGS[code] in meaning
    assert REMEDY.search(remedy)
