"""Keys and metadata that break whoever puts them together with strings."""

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.layout import annotations_key
from pipeline.dataset.shards import shard_of
from pipeline.driver.committer import Committer
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, open_output
from tests.support.tars import (
    an_annotation,
    annotated_table,
    annotation_row,
    end_row,
    job_record,
    picture,
    tar,
)

KEYS = (
    *("a/b/c", "/etc/passwd", "../../up", "C:\\a", "-rf", "a b", " ", "%s%n{}", "{{ 7*7 }}"),
    *("\"two\" 'one' `three`", "'; DROP TABLE a; --", "<script>alert(1)</script>", "$(id)"),
    *("🐈‍⬛", "naïve", "日本", "\n\r\t", "\x01\x1b[31m", "\u202eright", "\u2028", "x" * 4000),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard; every key is in its sample's metadata, too. The last key and text are no UTF-8."""
    root = tmp_path_factory.mktemp("names")
    raw = b"caf\xe9"
    members = [
        (f"{key}.{kind}", data)
        for i, key in enumerate(KEYS)
        for kind, data in (("jpg", picture(i)), ("json", json.dumps({key: key}).encode()))
    ]
    members += [(raw.decode("utf-8", "surrogateescape") + ".jpg", picture())]
    members += [(raw.decode("utf-8", "surrogateescape") + ".txt", raw)]
    (root / "in").mkdir()
    (root / "in" / "a.tar").write_bytes(tar(members))
    [source] = InputStore().list(str(root / "in")).objects
    shard = shard_of(source)
    reader = ShardReader(store=InputStore(), tasks=("brief",), exif="apply")
    samples = [row for t in reader.read(shard) for row in t["sample"].drop_null().to_pylist()]
    rows = [
        {"shard_id": shard.shard_id, "annotated": annotation_row(shard.shard_id, s, annotation)}
        for s in samples
        for annotation in [an_annotation(caption=f"An image of {s['key']}", entities=())]
    ]
    store = open_output(str(root / "out"))
    record = job_record(JobSpec(input="in", output="out", task=("brief",)))
    committer = Committer(store, record, [shard], max_reject_rate=1)
    committer.add(annotated_table([*rows, end_row(shard, len(samples))]))
    [committed] = committer.close()
    return root / "out" / annotations_key(committed.shard_id)


def test_keys_and_metadata_come_out_as_they_went_in(dataset: Path) -> None:
    rows = pq.read_table(dataset).to_pylist()
    *sound, last = rows
    assert [row["key"] for row in sound] == list(KEYS)
    assert [row["member"] for row in sound] == [f"{key}.jpg" for key in KEYS]
    assert [json.loads(row["metadata"]) for row in sound] == [{key: key} for key in KEYS]
    assert (last["key"], json.loads(last["metadata"])) == ("caf\\xe9", {"txt": "caf\ufffd"})


def test_other_engines_read_them_alike(dataset: Path) -> None:
    query = "SELECT key, metadata, metadata::JSON FROM read_parquet(?) ORDER BY index"
    found = duckdb.execute(query, [str(dataset)]).fetchall()
    expected = [(row["key"], row["metadata"]) for row in pq.read_table(dataset).to_pylist()]
    assert [(key, metadata) for key, metadata, _ in found] == expected


def test_nothing_is_written_where_a_key_points(dataset: Path) -> None:
    root = dataset.parents[2]
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == {
        "in/a.tar",
        f"out/annotations/{dataset.name}",
    }
