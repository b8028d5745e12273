"""What a manifest says, in any of its formats: rows, the column of the images, and their names."""

import base64
import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputUnreadable
from pipeline.formats import expanding
from pipeline.formats.limits import Expansion
from pipeline.formats.listed import is_there
from pipeline.formats.sample import Sample, Unreadable
from pipeline.formats.table.image_names import ImageNames, refusal
from pipeline.formats.table.rows import MANIFEST_EXTENSIONS, rows_of
from pipeline.storage import InputStore
from pipeline.storage.objects import Location
from tests.support.forms import planned
from tests.support.tars import picture

IMAGES = [picture(i) for i in range(3)]
BASE64 = base64.b64encode(picture()).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a.jpg, b.jpg and c.jpg in `images/`."""
    (tmp_path / "images").mkdir()
    for name, image in zip("abc", IMAGES, strict=True):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(image)
    return tmp_path


def read(path: Path, content: str | bytes | None = None, **options: Any) -> list[Any]:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = planned(path, **{"input_format": "manifest", **options})
    return [each for shard in found.shards for each in found.reader.read(shard)]


def said(samples: list[Sample | Unreadable]) -> list[Any]:
    """The metadata of each sample, or why there is none."""
    return [
        json.loads(each.metadata or "null") if isinstance(each, Sample) else each.error_type
        for each in samples
    ]


# ---- formats


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "file_name,n\nimages/a.jpg,1\n", [{"n": "1"}]),
        ("a.csv", "\ufefffile_name,n\r\n\"images/a.jpg\",\"x, \"\"y\"\"\"\r\n", [{"n": 'x, "y"'}]),
        ("a.csv", "file_name,n\r\nimages/a.jpg,\"two\r\nlines\"\r\n\r\n", [{"n": "two\r\nlines"}]),
        ("a.csv", "file_name;n\nimages/a.jpg;x, y\n", [{"n": "x, y"}]),
        ("a.csv", "file_name|n\nimages/a.jpg|x\n", [{"n": "x"}]),
        ("a.csv", "file_name\tn\nimages/a.jpg\tx\n", [{"n": "x"}]),
        ("a.csv", "sep=;\r\nfile_name;n\r\nimages/a.jpg;x\r\n", [{"n": "x"}]),
        ("a.csv", 'file_name,"a;b;c"\nimages/a.jpg,x\n', [{"a;b;c": "x"}]),
        ("a.csv", "a;b,file_name\nx,images/a.jpg\n", [{"a;b": "x"}]),
        ("a.csv", "File Name, Caption\n images/a.jpg , \"a, b\"\n", [{"Caption": "a, b"}]),
        ("a.csv", "file_name,n,m\nimages/a.jpg,x\nimages/b.jpg,x,y\n",
         [{"n": "x", "m": None}, {"n": "x", "m": "y"}]),
        ("a.csv", "file_name,n,\nimages/a.jpg,x,\n,,\n,,\n", [{"n": "x"}]),
        ("a.csv", ",file_name\n0,images/a.jpg\n", [{"": "0"}]),
        ("a.csv", "file_name,n,n\nimages/a.jpg,x,y\n", [{"n": "x", "n.1": "y"}]),
        ("a.csv", "images/a.jpg,x\nimages/b.jpg,y\n", [{"column1": "x"}, {"column1": "y"}]),
        ("a.csv", "images/a.jpg\nimages/b.jpg\n", [None, None]),
        ("a.csv", "file_name\nimages/a.jpg\n", [None]),
        ("a.csv", "file_name,n\nimages/a.jpg,caf\xe9\n".encode("utf-16"), [{"n": "caf\xe9"}]),
        ("a.csv", "file_name,n\nimages/a.jpg,x\n".encode("utf-32"), [{"n": "x"}]),
        ("a.tsv", "n\tfile_name\nx, \"y\"\timages/a.jpg\n", [{"n": 'x, "y"'}]),
        ("a.txt", "images/a.jpg\r\n\r\nimages/b.jpg\r\n", [None, None]),
        ("a.txt", "images/a.jpg", [None]),
        ("a.jsonl", '\ufeff{"file_name": "images/a.jpg", "s": NaN}\r\n\r\n', [{"s": None}]),
        ("a.jsonl", '"images/a.jpg"\n"images/b.jpg"\n', [None, None]),
        ("a.jsonl", '[{"file_name": "images/a.jpg", "n": 1}]', [{"n": 1}]),
        ("a.ndjson", '{"file_name": "images/a.jpg", "n": 1}', [{"n": 1}]),
        ("a.json", '[{"image": "images/a.jpg", "n": 1}, {"image": "images/b.jpg", "n": 2}]',
         [{"n": 1}, {"n": 2}]),
        ("a.json", '[\n "images/a.jpg",\n "images/b.jpg"\n]\n', [None, None]),
        ("a.json", '{"file_name": "images/a.jpg", "n": 1}\n{"file_name": "images/b.jpg", "n": 2}',
         [{"n": 1}, {"n": 2}]),
        ("a.json", '{"file_name": "images/a.jpg", "n": 1}', [{"n": 1}]),
        ("a.json", '{"info": {"v": 1}, "annotations": [{"id": 1}], "images": '
         '[{"file_name": "images/a.jpg", "height": 1}], "more": 1}', [{"height": 1}]),
        ("a.json", '{\n "info": {"v": 1},\n "images": [\n  {"file_name": "images/a.jpg"}\n ]\n}',
         [None]),
        ("a.json", '{"images/a.jpg": {"caption": "x"}, "images/b.jpg": {"caption": "y"}}',
         [{"caption": "x"}, {"caption": "y"}]),
        ("a.json", '{"images": "images/a.jpg", "n": [1]}\n{"images": "images/b.jpg", "n": []}\n',
         [{"n": [1]}, {"n": []}]),
        ("a.json", "[]", []),
    ],
)  # fmt: skip
def test_rows_are_read_in_any_format(
    folder: Path, name: str, content: str | bytes, expected: list[Any]
) -> None:
    assert said(samples := read(folder / name, content)) == expected
    assert [each.data for each in samples] == IMAGES[: len(expected)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file_name,n\nimages/a.jpg,a, b\n", "line 2 has 3 fields.*in quotes"),
        ("a.csv", b"file_name,n\na.jpg,caf\xe9\n", "not in UTF-8.*0xe9.*iconv"),
        ("a.csv", "file_name\na.jpg\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a.csv", 'file_name,n\na.jpg,"open\n' + "b.jpg,c\n" * 700_000, "close its quote"),
        ("a.csv", f"n,image\n1,{BASE64 * 200}\n", "image holds images as base64.*Parquet"),
        ("a.jsonl", json.dumps({"image": BASE64}), "image holds images as base64.*Parquet"),
        ("a.jsonl", json.dumps({"image": f"data:image/png;base64,{BASE64}"}), "base64 text"),
        ("a.jsonl", json.dumps({"image": "x" * (5 << 20)}), "more than 4 Mi characters"),
        ("a.jsonl", '{"images": ["a.jpg"]}\n', r"lists; choose one.*--image-column images\.0"),
        ("a.jsonl", '{"file_name": 1}\n', "no row has text in the column file_name"),
        ("a.jsonl", "[1]", "an object or a name"),
        ("a.json", "{\"info\": 1, \"categories\": [1]}", None),
        ("a.json", "{\n\"info\": 1,\n\"categories\": [1]}", "with the keys info, categories"),
        ("a.json", '[{"file_name": "a.jpg"}, {"file_name": ', "after 1 rows"),
        ("a.json", '[{"file_name": "a.jpg"} {}]', "after 1 rows.*expected ',', found '{'"),
        ("a.csv.gz", gzip.compress(b"file_name\na.jpg\n", mtime=0)[:-12], "cannot be read after"),
        ("a.csv.xz", lzma.compress(b"file_name\na.jpg\n" * 100)[:-40], "cannot be read after"),
        ("a.csv.zst", pa.Codec("zstd").compress(b"file_name\na.jpg\n", asbytes=True)[:-3],
         "cannot be read after"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(
    folder: Path, name: str, content: str | bytes, message: str | None
) -> None:
    with pytest.raises(
        InputUnreadable, match=f"{name}: .*{message or 'no column could be chosen'}"
    ):
        read(folder / name, content)


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.json", "a.jsonl", "a.ndjson"])
def test_compressed_ones_are_the_same(folder: Path, name: str, compression: str) -> None:
    rows = {
        "a.csv": "file_name,n\nimages/a.jpg,1\n",
        "a.tsv": "file_name\tn\nimages/a.jpg\t1\n",
        "a.txt": "images/a.jpg\n",
        "a.json": '[{"file_name": "images/a.jpg", "n": "1"}]',
    }.get(name, '{"file_name": "images/a.jpg", "n": "1"}\n')
    data = rows.encode()
    expected = [None if name == "a.txt" else {"n": "1"}]
    assert said(read(folder / f"{name}{compression}", COMPRESSED[compression](data))) == expected
    parts = COMPRESSED[compression](data[:4]) + COMPRESSED[compression](data[4:])
    assert said(read(folder / f"{name}{compression}", parts)) == expected
    assert said(read(folder / f"{name}{compression}", data)) == expected  # its name alone says so
    assert f"{name}{compression}".endswith(MANIFEST_EXTENSIONS)


def test_what_expands_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expanding, "TEXT_EXPANSION", Expansion(10, 1 << 20))
    data = gzip.compress(b"file_name\n" + b"\n" * (2 << 20))
    with pytest.raises(InputUnreadable, match="expands far beyond its size"):
        read(folder / "a.csv.gz", data)


def test_a_document_of_json_is_never_held_as_a_whole() -> None:
    """COCO's is half a gigabyte."""
    annotations = ",".join(['{"id": 1, "segmentation": [[1.5, 2.5, 3.5]]}'] * 200_000)
    images = ",".join(f'{{"file_name": "{i}.jpg"}}' for i in range(1000))
    text = f'{{"annotations": [{annotations}], "images": [{images}], "categories": []}}'
    assert len(text) > 2 * (4 << 20)
    rows = list(rows_of("a.json")(io.BytesIO(text.encode())))
    assert rows == [{"file_name": f"{i}.jpg"} for i in range(1000)]


# ---- Parquet


def test_a_large_table_of_few_bytes_is_read(tmp_path: Path) -> None:
    """100,000 rows of 8 names take less than a byte each: as a table of images it would be none."""
    names = pa.DictionaryArray.from_arrays(
        pa.array([i % 8 for i in range(100_000)]), pa.array([f"{i}.jpg" for i in range(8)])
    )
    for array in (names, names.cast(pa.string())):
        pq.write_table(pa.table({"file_name": array}), tmp_path / "a.parquet")
        assert (tmp_path / "a.parquet").stat().st_size < 100_000
        found = planned(tmp_path / "a.parquet", samples_per_shard=100_000)
        [shard] = found.shards
        assert (shard.kind, shard.count) == ("manifest", 100_000)


def test_a_footer_of_a_table_of_names_is_not_believed(tmp_path: Path) -> None:
    """There are as many rows as can be read, and none is lost in silence."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"file_name": [f"{i}.jpg" for i in range(1000)]}), path)
    thousand, more = b"\x16\xd0\x0f", b"\x16\xfe\x7f"  # 64-bit fields, 1,000 and 8,191
    data = path.read_bytes()
    assert data.count(thousand) == 3  # of the file, its row group, and its column
    path.write_bytes(data.replace(thousand, more))
    with pytest.raises(InputUnreadable, match=r"after 1000 rows: it has 1000.*claims 8191"):
        read(path)


@pytest.mark.parametrize(
    "columns",
    [
        {"URL": ["a.jpg"], "TEXT": ["x"]},
        {"url": pa.array(["a.jpg"], pa.large_string())},
        {"url": pa.array(["a.jpg"], pa.string_view())},
        {"url": pa.array(["a.jpg"]).dictionary_encode()},
        {"image": pa.array([{"bytes": None, "path": "a.jpg"}])},
        {"frame": ["a.jpg"], "words": ["a picture"]},
    ],
)  # fmt: skip
def test_names_of_any_type_are_read(folder: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), folder / "images" / "t.parquet")
    [sample] = read(folder / "images" / "t.parquet", input_format="auto")
    assert sample.data == IMAGES[0]


def test_what_other_programs_write_is_read(folder: Path) -> None:
    frame = pd.DataFrame({"file_name": ["images/a.jpg"], "n": [1]}, index=["r"])
    frame.to_parquet(folder / "a.parquet")
    assert said(read(folder / "a.parquet")) == [{"n": 1, "__index_level_0__": "r"}]
    frame.to_csv(folder / "a.csv")
    assert said(read(folder / "a.csv")) == [{"": "r", "n": "1"}]
    frame.to_csv(folder / "a.tsv", sep="\t", index=False, compression="gzip")
    assert said(read(folder / "a.tsv")) == [{"n": "1"}]
    frame.to_json(folder / "a.json", orient="records")
    assert said(read(folder / "a.json")) == [{"n": 1}]
    frame.to_json(folder / "a.json", orient="records", lines=True)
    assert said(read(folder / "a.json")) == [{"n": 1}]
    for form, name in (("PARQUET", "d.parquet"), ("CSV", "d.csv"), ("JSON", "d.json")):
        row = "SELECT 'images/a.jpg' AS file_name, 'x' AS n"
        duckdb.connect().sql(f"COPY ({row}) TO '{folder}/{name}' (FORMAT {form})")
        assert said(read(folder / name)) == [{"n": "x"}]


def test_part_files_of_spark_are_one_input(folder: Path) -> None:
    (parts := folder / "table").mkdir()
    (parts / "_SUCCESS").write_bytes(b"")
    (parts / ".part-00000.csv.crc").write_bytes(b"crc")
    for number, name in enumerate("ab"):
        (parts / f"part-0000{number}-c000.csv").write_text(f"path\n../images/{name}.jpg\n")
    assert [each.data for each in read(parts)] == IMAGES[:2]


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a.jpg"])] * 2, ["url", "url"])
    pq.write_table(table, folder / "a.parquet")
    with pytest.raises(InputUnreadable, match="has two columns named url"):
        read(folder / "a.parquet")


# ---- which column


@pytest.mark.parametrize(
    ("row", "chosen"),
    [
        ({"file_name": "images/a.jpg", "url": "https://a.org/p/0"}, "file_name"),
        ({"url": "https://a.org/p/0", "file_name": "images/a.jpg"}, "file_name"),
        ({"file_name": "images/a.jpg", "path": "train/cat/0"}, "file_name"),
        ({"path": "train/cat/0", "url": "https://a.org/a.jpg"}, "url"),
        ({"path": "images/gone.jpg", "url": "https://a.org/a.jpg"}, "url"),
        ({"path": "images/a.jpg", "url": "https://a.org/a.jpg"}, "path"),
        ({"image": "images/gone.jpg", "path": "images/a.jpg"}, "path"),
        ({"path": "images", "file": "images/a.jpg"}, "file"),
        ({"file_name": None, "url": "https://a.org/a.jpg"}, "url"),
        ({"file_name": "", "url": "https://a.org/a.jpg"}, "url"),
        ({"image": 17, "file": "images/a.jpg"}, "file"),
        ({"image": BASE64, "path": "images/gone.jpg"}, "path"),
        ({"URL": "https://a.org/a.jpg", "TEXT": "a cat"}, "URL"),
        ({"Image Path": "images/a.jpg", "n": 1}, "Image Path"),
        ({"image_url": "https://a.org/1", "url": "https://a.org/2"}, "image_url"),
        ({"left_file_name": "images/a.jpg", "n": "images/b.jpg"}, "left_file_name"),
        ({"frame": "images/a.jpg", "words": "a cat"}, "frame"),
        ({"path": "cat/0", "frame": "images/a.jpg"}, "frame"),
        ({"id": 1, "file_name": "0.jpg", "coco_url": "http://a.org/0.jpg"}, "coco_url"),
        ({"name": "x", "src": "images/a.jpg", "mask": "images/gone.jpg"}, "src"),
    ],
)  # fmt: skip
def test_the_column_whose_values_lead_somewhere_is_taken(
    folder: Path, row: dict[str, Any], chosen: str
) -> None:
    content = json.dumps(row) + "\n"
    assert read(folder / "a.jsonl", content) == read(folder / "a.jsonl", image_column=chosen)


@pytest.mark.parametrize(
    "row", [{"src": "images/a.jpg", "mask": "images/b.jpg"}, {"words": "a cat"}]
)
def test_where_the_values_do_not_tell_it_is_asked(folder: Path, row: dict[str, Any]) -> None:
    with pytest.raises(
        InputUnreadable, match=r"no column could be chosen for the names of images.*--image-column"
    ):
        read(folder / "a.jsonl", json.dumps(row))


def test_values_that_come_late_are_seen(folder: Path) -> None:
    rows = [{"file_name": None, "path": "cat/1"}] * 200 + [{"file_name": "images/a.jpg"}]
    samples = read(folder / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert samples[-1].data == IMAGES[0]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"url": "https://a.org/a", "other": "images/a.jpg"}, "other"),
        ({"url": "https://a.org/a", "Other": "images/a.jpg"}, "other"),
        ({"images": ["images/b.jpg", "images/a.jpg"]}, "images.1"),
        ({"data": {"image": "images/a.jpg", "url": "x"}}, "data.image"),
        ({"image.path": "images/a.jpg", "image": {"path": "x"}}, "image.path"),
        ({"image": {"path": "images/a.jpg", "bytes": None}}, "image"),
    ],
)
def test_the_column_that_is_asked_for_is_taken(
    folder: Path, row: dict[str, Any], asked: str
) -> None:
    [sample] = read(folder / "a.jsonl", json.dumps(row), image_column=asked)
    assert sample.data == IMAGES[0]


def test_the_choice_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        read(folder / "a.jsonl", '{"file_name": "images/a.jpg", "url": "https://a.org"}')
    assert "a.jsonl: the column 'file_name' names the images (of file_name, url)" in caplog.text


# ---- names


def uri_of(name: str, at: str, there: tuple[str, ...] = ()) -> str | None:
    return ImageNames(Location(*at.split("://", 1)), lambda uri: uri in there).uri_of(name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "b/m/a.jpg"),
        ("./a.jpg", "b/m/a.jpg"),
        ("x/./y/../a.jpg", "b/m/x/a.jpg"),
        ("../images/a.jpg", "b/images/a.jpg"),
        ("/images/a.jpg", "b/images/a.jpg"),
        ("images\\a.jpg", "b/m/images/a.jpg"),
        (".\\images\\a.jpg", "b/m/images/a.jpg"),
        ("..\\a.jpg", "b/a.jpg"),
        (" a.jpg ", "b/m/a.jpg"),
        ("a b+c%20d#e?f=1&g.jpg", "b/m/a b+c%20d#e?f=1&g.jpg"),
        ("std::vector.jpg", "b/m/std::vector.jpg"),
        ("100%25.jpg", "b/m/100%25.jpg"),
        ("日本語.jpg", "b/m/日本語.jpg"),
        ("*star[1].jpg", "b/m/*star[1].jpg"),
        ("~/a.jpg", "b/m/~/a.jpg"),
        ("a.jpg\n", "b/m/a.jpg"),
    ],
)
@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "memory", "file"])
def test_relative_names_are_beside_the_manifest(scheme: str, name: str, path: str) -> None:
    root = "/" if scheme == "file" else ""
    at_root = name.startswith("/") and scheme in ("file", "memory")  # there is no bucket
    expected = f"{scheme}://{root}{path.removeprefix('b/') if at_root else path}"
    assert uri_of(name, f"{scheme}://{root}b/m/a.csv") == expected


@pytest.mark.parametrize(
    ("name", "at", "message"),
    [
        ("../../a.jpg", "s3://b/m/a.csv", "../../a.jpg leads out of the bucket"),
        ("../a.jpg", "s3://b/a.csv", "../a.jpg leads out of the bucket"),
        ("/../a.jpg", "gs://b/m/a.csv", "leads out of the bucket"),
        ("../../a.jpg", "hf://datasets/u/d/m/a.csv", "leads out of the bucket"),
        ("C:\\Users\\me\\a.jpg", "file:///m/a.csv", r"C:\\Users\\me\\a.jpg is a path of a Windows"),
        ("c:/Users/me/a.jpg", "s3://b/a.csv", "is a path of a Windows machine"),
        ("\\\\server\\share\\a.jpg", "file:///m/a.csv", "is a path of a Windows machine"),
        ("file:///C:/Users/a.jpg", "file:///m/a.csv", "is a path of a Windows machine"),
        ("a\0.jpg", "file:///m/a.csv", "its URL is not valid"),
        ("\ud800.jpg", "file:///m/a.csv", "its URL is not valid"),
        ("https://me:hush@a.org/a.jpg", "file:///m/a.csv", "its URL is not valid"),
        ("a.jpg?token=hush", "https://a.org/m/a.csv", "its URL is not valid"),
    ],
)
def test_a_name_that_leads_nowhere_is_rejected_by_name(name: str, at: str, message: str) -> None:
    uri = uri_of(name, at)
    assert uri is not None
    assert message.replace("\\\\", "\\") in (refusal(uri) or "")
    assert "hush" not in uri


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("../a.jpg", "hf://datasets/u/d/m/a.csv", "hf://datasets/u/d/a.jpg"),
        ("/a.jpg", "hf://u/model/m/a.csv", "hf://u/model/a.jpg"),
        ("../../../a.jpg", "file:///m/a.csv", "file:///a.jpg"),
        ("a//b.jpg", "s3://b/m/a.csv", "s3://b/m/a//b.jpg"),
        ("../x/a.jpg", "https://a.org/m/a.csv", "https://a.org/x/a.jpg"),
        ("s3a://other/a.jpg", "s3://b/a.csv", "s3://other/a.jpg"),
        ("HTTPS://a.org/a%20b.jpg", "s3://b/a.csv", "https://a.org/a%20b.jpg"),
        (" https://a.org/a.jpg\n", "s3://b/a.csv", "https://a.org/a.jpg"),
        ("file:///d/a%20b%23.jpg", "file:///m/a.csv", "file:///d/a b#.jpg"),
        ("file://localhost/d/a.jpg", "file:///m/a.csv", "file:///d/a.jpg"),
        ("file:/d/a.jpg", "file:///m/a.csv", "file:///d/a.jpg"),
    ],
)
def test_urls_are_what_they_say(name: str, at: str, expected: str) -> None:
    assert uri_of(name, at) == expected


@pytest.mark.parametrize("name", ["images\\a.jpg", " a.jpg", "a.jpg "])
@pytest.mark.parametrize("root", ["file:///m", "s3://b/m"])
def test_a_name_that_is_there_as_written_is_taken_so(root: str, name: str) -> None:
    mended = f"{root}/{name.strip().replace(chr(92), '/')}"
    assert uri_of(name, f"{root}/a.csv", there=(f"{root}/{name}", mended)) == f"{root}/{name}"
    assert uri_of(name, f"{root}/a.csv", there=(mended,)) == mended
    assert uri_of(name, f"{root}/a.csv") == mended


def test_one_name_as_written_tells_for_all() -> None:
    asked = list[str]()

    def exists(uri: str) -> bool:
        asked.append(uri)
        return uri == "s3://b/x\\1.jpg"

    names = ImageNames(Location("s3", "b/a.csv"), exists)
    uris = [names.uri_of(f"x\\{i}.jpg") for i in range(100)]
    assert uris == ["s3://b/x/0.jpg", *(f"s3://b/x\\{i}.jpg" for i in range(1, 100))]
    assert len(asked) == 3


def test_each_name_of_a_real_folder_is_found(folder: Path) -> None:
    (folder / "images" / "a b#%41.jpg").write_bytes(IMAGES[1])
    (folder / "100%25.jpg").write_bytes(IMAGES[2])
    names = [
        *("images/a.jpg", "./images/a.jpg", f"../{folder.name}/images/a.jpg", "images\\a.jpg"),
        *(".\\images\\a.jpg", f"{folder}/images/a.jpg", f"file://{folder}/images/a.jpg"),
        f"file:{folder}/images/a.jpg",
        *("images/a b#%41.jpg", (folder / "images" / "a b#%41.jpg").as_uri()),
        f"file://{folder}/100%25.jpg",
        *("C:\\a.jpg", "images/gone.jpg", "x\0y.jpg"),
    ]
    rows = "".join(json.dumps({"file_name": name, "key": name}) + "\n" for name in names)
    samples = read(folder / "a.jsonl", rows)
    assert [each.data for each in samples[:8]] == [IMAGES[0]] * 8
    assert [each.data for each in samples[8:11]] == [IMAGES[1], IMAGES[1], IMAGES[2]]
    assert [each.error_type for each in samples[11:]] == [
        *("storage_url", "input_missing", "storage_url")
    ]
    assert [each.key for each in samples] == names
    assert "C:\\a.jpg is a path of a Windows machine" in samples[11].message


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_other_stores_read_them_alike(request: pytest.FixtureRequest, store: str) -> None:
    bucket = request.getfixturevalue("s3_bucket") if store == "s3" else "columns"
    root = "" if store == "s3" else f"/{bucket}"  # in memory there are no buckets
    names = {
        "./a.jpg": 0,
        "../images/b.jpg": 1,
        f"{root}/images/c.jpg": 2,
        "..\\images\\c.jpg": 2,
        "a b+c%20d#e?f=1&g.jpg": 1,
    }
    files = {
        "m/a.jpg": IMAGES[0],
        "images/b.jpg": IMAGES[1],
        "images/c.jpg": IMAGES[2],
        "m/a b+c%20d#e?f=1&g.jpg": IMAGES[1],
        "m/list.txt": "\n".join([*names, "../../../a.jpg"]).encode(),
    }
    if store == "s3":
        client = request.getfixturevalue("s3_server").client()
        for key, data in files.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
    else:
        fsspec.filesystem("memory").pipe({f"{root}/{key}": data for key, data in files.items()})
    uri = f"{store}://{bucket}/m/list.txt"
    found = planned(Path(), input=uri, input_format="manifest")
    *samples, lost = [each for shard in found.shards for each in found.reader.read(shard)]
    assert [data_of(each) for each in samples] == [IMAGES[number] for number in names.values()]
    assert "../../../a.jpg leads out of the bucket" in lost.message  # type: ignore[union-attr]


def data_of(sample: Any) -> bytes | str:
    return sample.data if isinstance(sample, Sample) else str(sample.message)


def test_what_may_not_be_read_is_not_asked_for(folder: Path) -> None:
    here = Location("file", str(folder / "a.csv"))
    assert is_there(InputStore(), here, (folder / "images/a.jpg").as_uri())
    assert not is_there(InputStore(), here, (folder / "images").as_uri())
    assert not is_there(InputStore(), here, (folder / "images/a.jpg/b.jpg").as_uri())
    assert not is_there(InputStore(), Location("s3", "b/a.csv"), (folder / "images/a.jpg").as_uri())
    assert not is_there(InputStore(), here, "https://127.0.0.1/a.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    assert is_there(InputStore(), here, (folder / "empty.jpg").as_uri())
