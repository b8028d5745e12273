"""`kosmos2 export`: what it says of the export."""

import json
from pathlib import Path

import pytest

from jobs.cli import run_command
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, pictures


def test_export_says_what_it_covered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(
        tmp_path,
        {"a.tar": (pictures(2), [[an_annotation()]] * 2), "b.tar": (pictures(1), None)},
    )
    arguments = ["export", str(tmp_path / "out"), str(tmp_path / "coco"), "--format", "coco"]
    assert run_command([*arguments, "--no-strip-prompt", "--categories", "head-noun"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 shards: 2 annotations, 2 boxes" in printed
    assert "incomplete: 1 planned shards are not committed" in printed
    found = json.loads((tmp_path / "coco" / "annotations" / "train-00000.json").read_text())
    assert [image["caption"] for image in found["images"]] == ["An image of a cat."] * 2
    assert [category["name"] for category in found["categories"]] == ["cat"]
    assert run_command(arguments) == 2
    assert "another strip_prompt" in (said := " ".join(capsys.readouterr().err.split()))
    assert "--overwrite" in said
    assert run_command([*arguments, "--overwrite"]) == 0
    assert "exported before" not in capsys.readouterr().err
    assert run_command(arguments) == 0
    assert "1 of 1 shards were exported before; 0 new" in capsys.readouterr().err
