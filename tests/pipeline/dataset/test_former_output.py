"""Outputs of the version before this layout of the code: they are gone on with, not made anew.

tests/data/former_output.zip holds what `annotate --limit` of that version left of two inputs, and
a failed attempt; the inputs lay in a bucket `former`.
"""

from pathlib import Path
from zipfile import ZipFile

import pytest

from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.layout import ANNOTATIONS, FAILURES, SUCCESS_KEY
from pipeline.dataset.status import read_status
from pipeline.driver.run import run
from pipeline.exit_codes import ExitCode
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, OutputStore, StorageOptions, open_output
from pipeline.verification.outputs import verify_dataset
from tests.support.locally import LocalTables
from tests.support.s3 import S3Server

DATA = Path(__file__).parents[2] / "data" / "former_output.zip"
TARS = {"task": ("brief", "ground:phrase=from"), "carry": ("n:int64",), "max_reject_rate": 1}
PHOTOS = {"samples_per_shard": 2}


@pytest.fixture(scope="module")
def former(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its outputs; its inputs are where they were."""
    folder = tmp_path_factory.mktemp("former")
    with ZipFile(DATA) as archive:
        archive.extractall(folder)
    client = s3_server.client()
    client.create_bucket(Bucket="former")
    for path in (folder / "input").rglob("*.*"):
        key = str(path.relative_to(folder / "input"))
        client.put_object(Bucket="former", Key=key, Body=path.read_bytes())
    return folder


@pytest.fixture(autouse=True)
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


def objects(store: OutputStore, folder: str) -> dict[str, bytes]:
    return {key: store.get(key).data for key in store.list(folder)}


@pytest.mark.parametrize(
    ("name", "options", "shards", "rows"),
    [("tars", TARS, 4, {"annotated": 12, "rejected": 4}), ("photos", PHOTOS, 3, {"annotated": 5})],
)
def test_a_former_output_is_gone_on_with(
    former: Path, name: str, options: dict[str, object], shards: int, rows: dict[str, int]
) -> None:
    output = str(former / name)
    store = open_output(output)
    before = {**objects(store, ANNOTATIONS), **objects(store, "plan"), **objects(store, "")}
    status = read_status(output, StorageOptions())
    assert (status.shards_planned, status.totals.shards) == (shards, shards - 1)
    assert status.costs is not None
    assert (status.costs.time, status.costs.shards_unknown) == (None, shards - 1)  # not 0
    spec = JobSpec(input=f"s3://former/{name}/", output=output, **options)
    assert run(spec, source=LocalTables()).exit_code is ExitCode.DONE
    after = {**objects(store, ANNOTATIONS), **objects(store, "plan"), **objects(store, "")}
    new = after.keys() - before.keys()
    assert len(new) == 2
    assert SUCCESS_KEY in new
    assert {key: after[key] for key in before} == before
    assert store.list(FAILURES) == []
    dataset = open_dataset(output, StorageOptions())
    assert verify_dataset(store, dataset.record).findings == ()
    status = read_status(output, StorageOptions())
    assert status.costs is not None
    assert (status.costs.time is None, status.costs.shards_unknown) == (False, shards - 1)
    totals = status.totals
    assert {"annotated": totals.annotated, "rejected": totals.rejected} == {"rejected": 0, **rows}
    place = open_output(str(former / f"{name}-boxes"))
    coverage = export_dataset(dataset, InputStore(), place, ExportOptions(format="boxes"))
    assert coverage.annotations == totals.annotated
