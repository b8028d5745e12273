"""Which kind of input is meant, what a manifest says, and what is refused before anything runs."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import Shard, freeze_plan
from pipeline.errors import CorruptOutput, InputUnreadable, StorageUrlError
from pipeline.formats.listed import check_scheme
from pipeline.formats.sample import Unreadable
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import discover
from pipeline.plan.drift import PlanDrift, beyond, drift_of
from pipeline.schema import LISTING
from pipeline.storage import open_output
from pipeline.storage.objects import Location
from tests.support.forms import FORMS, Scene, planned
from tests.support.tars import picture

SCENES = [Scene(name=f"s{i}", data=picture(i)) for i in range(3)]


def write(folder: Path, *forms: str) -> Path:
    for form in forms:
        FORMS[form](folder, SCENES)
    return folder


def kinds(folder: Path, **options: object) -> set[str]:
    return {shard.kind for shard in planned(folder, **options).shards}


# ---- which kind


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        (("tar", "parquet", "files"), "webdataset"),
        (("arrow", "files"), "arrow"),
        (("hugging-face", "files"), "parquet"),
        (("parquet-manifest", "files"), "files"),
        (("csv", "jsonl"), "manifest"),
        (("files", "csv"), "files"),
    ],
)
def test_of_several_kinds_one_is_meant(
    tmp_path: Path, forms: tuple[str, ...], expected: str
) -> None:
    (folder := tmp_path / "in").mkdir()
    assert kinds(write(folder, *forms)) == {expected}


def test_a_kind_can_be_named(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    write(folder, "tar", "files", "csv")
    assert kinds(folder, input_format="files") == {"files"}
    assert kinds(folder / "a.csv") == {"manifest"}
    assert kinds(folder, include=("*.csv",)) == {"manifest"}


def test_what_datasets_keeps_for_itself_is_no_input(tmp_path: Path) -> None:
    write(tmp_path, "arrow")
    (tmp_path / "cache-1234.arrow").write_bytes(b"of a map")
    assert len(planned(tmp_path).shards) == 1


def test_one_picture_is_a_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    [shard] = planned(tmp_path / "a.jpg").shards
    assert (shard.kind, shard.count, shard.uri) == ("files", 1, f"file://{tmp_path}/")


# ---- Parquet


def table(**columns: list[object]) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (
            {"a": [b"x"], "b": [b"y"]},
            {},
            "no column could be chosen for images.*a .binary.*--image-column",
        ),
        ({"a": [b"x"], "b": [1]}, {"image_column": "b", "input_format": "parquet"}, "column b"),
        ({"n": [1]}, {}, "no column could be chosen for images"),
    ],
)
def test_a_column_that_cannot_be_told_is_asked_for(
    tmp_path: Path, columns: dict[str, list[object]], options: dict[str, str], said: str
) -> None:
    pq.write_table(table(**columns), tmp_path / "a.parquet")
    with pytest.raises(InputUnreadable, match=f"a.parquet.*{said}"):
        planned(tmp_path, **options)


def test_a_column_can_be_named(tmp_path: Path) -> None:
    pq.write_table(table(a=[b"x"], b=[picture()]), tmp_path / "a.parquet")
    found = planned(tmp_path, image_column="b")
    [sample] = found.reader.read(found.shards[0])
    assert (sample.data, sample.metadata) == (picture(), None)  # other bytes are no metadata


def test_one_broken_file_among_others_is_a_shard_that_fails(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    found = planned(tmp_path)
    assert [shard.count for shard in found.shards] == [3, None]
    with pytest.raises(InputUnreadable, match=r"b\.parquet cannot be read as Parquet"):
        list(found.reader.read(found.shards[1]))


def test_a_row_group_that_is_damaged_costs_its_own_rows(tmp_path: Path) -> None:
    rows = [{"key": f"k{i}", "jpg": picture(i)} for i in range(9)]
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path, row_group_size=3, write_page_checksum=True, use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 100] ^= (
        255  # statistics come before
    )
    path.write_bytes(data)
    found = planned(tmp_path)
    samples = [each for shard in found.shards for each in found.reader.read(shard)]
    lost = [each for each in samples if isinstance(each, Unreadable)]
    assert [each.key for each in samples] == ["k0", "k1", "k2", "3", "4", "5", "k6", "k7", "k8"]
    assert [(each.error_type, each.key) for each in lost] == [
        ("corrupt_row_group", key) for key in "345"
    ]


# ---- manifests


def write_lines(folder: Path, *rows: object, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"url": "a.jpg"}\n{"url": \n', "after 1 rows"),
        ("a.jsonl", "[1]\n", "each row must be an object"),
        (
            "a.jsonl",
            '{"words": "a"}\n',
            "no column could be chosen for the names of images.*words.*--image-column",
        ),
        ("a.jsonl", '{"url": 3}\n', "no row has text in the column url"),
        ("a.csv", "url,n\na.jpg,1,2\n", "but the first line has 2"),
        ("a.csv", 'url\n"' + "a" * (5 << 20), "more than 4 Mi characters"),
        ("a.csv", "url\n\udcff.jpg\n", "not in UTF-8.*iconv"),
        ("a.parquet", "words", "cannot be read as Parquet"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputUnreadable, match=f"{name}.*{said}"):
        planned(tmp_path, input_format="manifest")


def test_each_row_of_a_manifest_ends_somehow(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    write_lines(
        tmp_path,
        {"url": "a.jpg", "key": "good", "size": 1.5, "nothing": None},
        {"url": "  "},
        {"words": "no name"},
        {"url": "gone.jpg"},
        {"url": "http://example.org/a.jpg"},
        {"url": "http://example.org/a.jpg?token=hush"},
        {"url": "ftp://example.org/a.jpg"},
        {"url": "s3:///a.jpg"},
        {"url": "x" * 5000},
        {"url": "a.jpg", "much": "x" * 2_000_000},
    )
    found = planned(tmp_path / "a.jsonl")
    samples = [each for shard in found.shards for each in found.reader.read(shard)]
    assert [getattr(each, "error_type", None) for each in samples] == [
        *(None, "no_image", "no_image", "input_missing", "storage_refused", "storage_url"),
        *("storage_url", "storage_url", "name_too_long", None),
    ]
    good, *_, large = samples
    assert (good.key, good.metadata) == ("good", '{"key": "good", "size": 1.5, "nothing": null}')
    assert (large.metadata, large.issues) == (None, ("metadata_too_large",))
    [listed] = found.reader.listings.tables.values()
    assert "hush" not in repr(samples) + repr(listed.to_pylist())


def test_a_name_that_no_file_can_have_costs_its_row_alone(tmp_path: Path) -> None:
    """One such row failed its whole shard, again and again."""
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    names = ("a.jpg", "folder", "a.jpg/b.jpg", "x" * 300, "loop")
    write_lines(tmp_path, *({"url": name} for name in names))
    found = planned(tmp_path / "a.jsonl")
    samples = [each for shard in found.shards for each in found.reader.read(shard)]
    assert [getattr(each, "error_type", None) for each in samples] == [
        *(None, *["storage_refused"] * 4),
    ]


def test_a_manifest_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    manifest = write_lines(tmp_path, {"url": "a.jpg"}, {"url": "b.jpg"})
    spec = planned(manifest).spec
    store = open_output(str(tmp_path / "out"))
    listings = StoredListings(store)
    plan = freeze_plan(store, cut(discover(spec), spec, listings).shards)
    again = discover(spec, plan=plan)
    assert (again.lists, again.known) == ((), {manifest.as_uri()})
    assert drift_of(plan, again, listings) == PlanDrift(new=(), changed=(), vanished=())
    assert drift_of(plan, again, listings).kept
    write_lines(tmp_path, {"url": "b.jpg"}, {"url": "c.jpg"}, {"url": "d.jpg"})
    changed = discover(spec, plan=plan)
    found = drift_of(plan, changed, listings)
    assert [[uri[-5:] for uri in uris] for uris in (found.new, found.vanished)] == [
        ["c.jpg", "d.jpg"],
        ["a.jpg"],
    ]
    [shard] = cut(beyond(plan, changed, listings), spec, listings).shards
    assert listings.rows(shard)["uri"].to_pylist() == list(found.new)


@pytest.mark.parametrize(
    ("uri", "root", "is_read"),
    [
        ("file:///etc/passwd", Location("s3", "b/a.csv"), False),
        ("/etc/passwd", Location("https", "host/a.csv"), False),
        ("file:///data/a.jpg", Location("file", "/a.csv"), True),
        ("s3://b/a.jpg", Location("file", "/a.csv"), True),
        ("gs://b/a.jpg", Location("s3", "b/a.csv"), True),
        ("webhdfs://inner:9870/a.jpg", Location("s3", "b/a.csv"), False),
        ("memory://a.jpg", Location("memory", "a.csv"), True),
    ],
)
def test_a_manifest_leads_only_where_it_may(uri: str, root: Location, is_read: bool) -> None:
    if is_read:
        check_scheme(uri, root)
    else:
        with pytest.raises(StorageUrlError, match="cannot be read from a manifest"):
            check_scheme(uri, root)


# ---- lists beside the plan


def test_a_list_gives_each_shard_its_own_rows(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    shards = planned(write(folder, "files")).shards
    assert [shard.count for shard in shards] == [3]
    listings = StoredListings(open_output(str(tmp_path / "out")))
    rows = pa.table({"uri": [f"file:///{i}.jpg" for i in range(10)]})
    key = listings.keep(listing(rows), 4)
    assert listings.keep(listing(rows), 4) == key
    for first, count in ((0, 4), (4, 4), (8, 2), (2, 7)):
        found = listings.rows(part(key, first, count))
        assert found["uri"].to_pylist() == [f"file:///{i}.jpg" for i in range(first, first + count)]


def test_a_damaged_list_is_said(tmp_path: Path) -> None:
    listings = StoredListings(open_output(str(tmp_path)))
    key = listings.keep(listing(pa.table({"uri": ["file:///a.jpg"]})), 4)
    with pytest.raises(CorruptOutput, match="is not the list that the plan names"):
        listings.rows(part(key, 0, 2))
    (tmp_path / key).write_bytes(b"no Parquet")
    with pytest.raises(CorruptOutput, match="is damaged"):
        listings.rows(part(key, 0, 1))


def listing(table: pa.Table) -> pa.Table:
    columns = {
        field.name: table[field.name]
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in LISTING
    }
    return pa.table(columns, schema=LISTING)


def part(key: str, first: int, count: int) -> Shard:
    return Shard(
        **{"shard_id": "a", "uri": "file:///", "size_bytes": 0, "etag": key, "kind": "files"},
        **{"listing": key, "first": first, "count": count},
    )
