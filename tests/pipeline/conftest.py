from pathlib import Path

import pytest

from pipeline.storage import OutputStore, open_output


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    if request.param == "local":
        return open_output(str(tmp_path / "out"))
    return open_output(f"s3://{request.getfixturevalue('s3_bucket')}/out")


@pytest.fixture
def local(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))
