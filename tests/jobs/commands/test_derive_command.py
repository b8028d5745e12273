"""`filter` and `dedup`: what they print."""

from pathlib import Path

import pytest

from jobs.cli import run_command
from tests.support.commits import extend_dataset, write_dataset
from tests.support.tars import an_annotation, pictures

MEMBERS = pictures(3)
ARCHIVE = ([*MEMBERS, ("9.jpg", MEMBERS[0][1])], [[an_annotation()]] * 4)


def test_dedup_says_how_much_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path, {"a.tar": ARCHIVE})
    out, dest = str(tmp_path / "out"), str(tmp_path / "unique")
    assert run_command(["dedup", out, dest]) == 0
    said = capsys.readouterr().out
    assert "new shards: 1, annotations kept in them: 3 of 4; shards in total: 1" in said
    extend_dataset(source, {"b.tar": ARCHIVE})
    assert run_command(["dedup", out, dest]) == 0
    said = capsys.readouterr().out
    assert "new shards: 1, annotations kept in them: 0 of 4; shards in total: 2" in said
    assert run_command(["dedup", out, dest]) == 0
    said = capsys.readouterr().out
    assert "new shards: 0, annotations kept in them: 0 of 0; shards in total: 2" in said
    assert run_command(["dedup", out, dest, "--near", "4"]) == 2
    assert "made by dedup with --keep largest, not with --near 4" in capsys.readouterr().err
