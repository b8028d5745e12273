"""The examples of docs/python.md in their order, then those of docs/output.md, in one process."""

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as pds
import pytest

from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.execution.annotate.stage import ANSWER
from tests.support.cluster import Kosmos2
from tests.support.documents import ROOT, fenced
from tests.support.patience import patient

PAGE = (ROOT / "docs" / "python.md").read_text()
READING = fenced("python", (ROOT / "docs" / "output.md").read_text())
IMAGES = 6
_AFTER = """
import ray
assert ray.is_initialized()  # the job left the caller's Ray as it was
"""
_AFTER_READING = f"""
assert len(rows) == 2 * {IMAGES}
assert len(boxes.fetchall()) >= {IMAGES} and boxes.columns[:3] == ["key", "phrase", "x1"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        scene = make_scene(21, number, objects=(1, 2))
        (folder / "photos" / f"{number}.jpg").write_bytes(encode_jpeg(scene, 95))
    return folder


def test_examples_of_the_documents_run(kosmos2: Kosmos2, folder: Path) -> None:
    first, stage, binary, job, rows = fenced("python", PAGE)
    # `read_images` fails on it; what reads bytes does not.
    broken = "from pathlib import Path; Path('photos/x.jpg').write_bytes(b'no image')\n"
    away = "Path('photos/x.jpg').unlink()\n"
    begin = "import ray; ray.init(log_to_driver=False)\n"
    of_page = [first, stage, broken, binary, away, job, rows]
    code = "\n".join([begin, *of_page, _AFTER, *READING, _AFTER_READING])
    code = code.replace("microsoft/kosmos-2-patch14-224", "shapes")
    for name in ("photos/", "annotated/"):  # Ray's own readers and writers are in other folders
        code = code.replace(f'"{name}"', f'"{folder / name}"')
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={
            **kosmos2.environment,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(folder / "huggingface"),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(600),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    table = pds.dataset(folder / "annotated").to_table()
    assert (table.num_rows, table.schema.field("brief").type) == (IMAGES, ANSWER)
    assert {answer["error"] for answer in table["brief"].to_pylist()} == {None}
    [bad] = [line for line in done.stdout.splitlines() if "x.jpg" in line]
    assert "unknown_format: " in bad
    assert (folder / "out" / "_SUCCESS.json").exists()
    assert pds.dataset(folder / "out" / "annotations").count_rows() == 2 * IMAGES
    assert "0 ()" in done.stdout.splitlines()
    assert [line for line in done.stdout.splitlines() if "boxes are lost" in line]
    assert list((folder / "coco" / "annotations").iterdir())
