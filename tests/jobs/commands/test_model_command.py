from pathlib import Path

import pytest

from jobs.cli import run_command
from pipeline.dataset.dataset import known_record
from pipeline.storage import open_output, s3
from tests.support.locally import without_ray
from tests.support.tars import pictures, tar


def test_a_model_is_put_where_a_job_finds_it(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    s3._file_system.cache_clear()
    without_ray(monkeypatch)
    model = f"s3://{s3_bucket}/models/shapes"
    assert run_command(["model", "fetch", "shapes", model]) == 0
    assert f"MB: {model}/" in capsys.readouterr().out
    assert run_command(["model", "fetch", "shapes", model]) == 0
    assert f"the model is there already: {model}/" in capsys.readouterr().out

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar(pictures(2)))
    job = ["annotate", str(tmp_path / "in"), str(tmp_path / "out"), "--model", model]
    assert run_command(job) == 0
    assert known_record(open_output(str(tmp_path / "out"))).model.id == model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("./nowhere", "no checkpoint at './nowhere': give a directory"),
        ("nonsense://x", "cannot get the model nonsense://x"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    model: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["model", "fetch", model, str(tmp_path / "dest")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "dest").exists()
