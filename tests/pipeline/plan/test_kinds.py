"""Which kind of input is meant, by what is there; what of it is read, and what is counted."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputMissing, InputUnreadable, SpecError
from pipeline.plan.discovery import Found, discover
from pipeline.plan.planning import settle_plan
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output
from pipeline.storage.ignored import Ignored, ignored_in_one_line
from tests.support.forms import planned
from tests.support.tars import picture, pictures, tar

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"


def put(folder: Path, *names: str, data: bytes | None = None) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if data is None else data)
    return folder


def found(path: Path, **options: Any) -> Found:
    output = options.pop("output", str(path.parent / "unused"))
    return discover(JobSpec(input=str(path), output=output, **options))


def taken(path: Path, **options: Any) -> list[str]:
    """Names relative to the input, of what is read."""
    seen = found(path, **options)
    uris = [info.uri for info in seen.objects]
    uris += [uri for each in seen.lists for uri in each.rows["uri"].to_pylist()]
    return [uri.removeprefix(f"{path.as_uri()}/") for uri in uris]


def ignored(path: Path, **options: Any) -> dict[str, int]:
    return {each.reason: each.count for each in found(path, **options).ignored}


# ---- a folder of images


def test_every_name_that_a_camera_or_a_person_gives_is_read(tmp_path: Path) -> None:
    names = [
        *("100NIKON/DSC_0102.JPG", "100NIKON/_DSC0101.JPG", "_MG_0103.jpg", "__cover.png"),
        *("_selects/IMG_0105.jpg", "_.jpg", "a.b.c.jpg", "dir.jpg/inner.jpg", "~x.jpg"),
    ]
    assert taken(put(tmp_path / "in", *names)) == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.png", "a.apng", "a.webp", "a.gif", "a.bmp"),
        *("a.dib", "a.tif", "a.tiff", "a.ppm", "a.pgm", "a.pbm", "a.pnm", "a.avif", "a.jp2"),
        *("a.heic", "a.HEIF", "a.jxl", "a.dng", "a.CR2", "a.psd"),
    ],
)
def test_what_the_decoder_knows_is_found_in_a_folder_as_in_a_tar(tmp_path: Path, name: str) -> None:
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "a.tar").write_bytes(tar([(name, picture())]))
    assert taken(put(tmp_path / "in", name)) == [name]
    shards = planned(tmp_path / "tar")
    [sample] = shards.reader.read(shards.shards[0])
    assert (sample.member, sample.data) == (name, picture())


@pytest.mark.parametrize("name", ["0a1b2c3d", "a.JPG_original", "a.jpg~", "a.image", "sub/a.0"])
def test_images_are_told_by_their_bytes_where_names_say_nothing(tmp_path: Path, name: str) -> None:
    """Caches name images by their hash (fiftyone#1399)."""
    assert taken(put(tmp_path / "in", name)) == [name]
    assert taken(put(tmp_path / "in", "plain.jpg")) == sorted([name, "plain.jpg"])


def test_what_lies_beside_images_is_counted_by_reason(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", *(f"{i}.jpg" for i in range(30)))
    put(folder, "a.txt", "b.TXT", "c.json", "README", "film.mp4", "x.zip", data=b"words")
    put(folder, ".hidden.jpg", "._a.jpg", "Thumbs.db", "sub/.git/a", "sub/.git/b", "@eaDir/a/T.jpg")
    put(folder, "labels.tar", data=tar(pictures(1)))
    os.symlink("nowhere", folder / "gone.jpg")
    assert ignored(folder) == {
        "hidden": 5,
        "broken links": 1,
        "archives beside images": 1,
        "not images (.txt)": 2,
        **dict.fromkeys(
            (f"not images ({name})" for name in (".json", ".mp4", ".zip", "no extension")), 1
        ),
    }
    [links] = [each for each in found(folder).ignored if each.reason == "broken links"]
    assert links.first == (f"{folder.as_uri()}/gone.jpg",)


def test_a_name_that_is_no_text_is_counted(tmp_path: Path) -> None:
    """One such name refused a folder of thousands (dupeguru#335)."""
    folder = put(tmp_path / "in", "a.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(picture())
    assert ignored(folder) == {"names not in UTF-8": 1}
    [each] = found(folder).ignored
    assert each.first == (f"{folder.as_uri()}/caf\\udce9.jpg",)


def test_what_is_ignored_is_said_in_one_line() -> None:
    counts = {
        **{"hidden": 3, "not images (.txt)": 1, "archives beside images": 1, "broken links": 2},
        **{"rows of tables without an image": 1, "in exports of this tool": 1},
    }
    ignored = [Ignored(reason=reason, count=count) for reason, count in counts.items()]
    assert ignored_in_one_line(ignored) == (
        "3 hidden, 1 not images (.txt), 1 archive beside images, 2 broken links, "
        "1 row of tables without an image, 1 in exports of this tool"
    )
    assert ignored_in_one_line(()) == "nothing"


# ---- of several kinds one


def test_one_stray_archive_or_table_does_not_win_over_images(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", *(f"{i}.jpg" for i in range(40)))
    put(folder, "stray.tar", data=tar(pictures(2)))
    pq.write_table(pa.table({"url": ["https://example.org/a.jpg"]}), folder / "a.parquet")
    pq.write_table(pa.table({"jpg": [picture()]}), folder / "b.parquet")
    assert found(folder).kind == "files"
    assert len(taken(folder)) == 40


def test_images_for_their_page_do_not_win_over_tars(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "preview.jpg")
    put(folder, "00000.tar", "00001.tar", data=tar(pictures(20)))
    pq.write_table(pa.table({"url": ["https://example.org/a.jpg"]}), folder / "00000.parquet")
    put(folder, "00000_stats.json", data=b"{}")
    assert found(folder).kind == "webdataset"
    assert ignored(folder) == {
        "images beside archives": 1,
        "Parquet files beside archives": 1,
        "not archives (.json)": 1,
    }


def test_the_largest_parquet_file_says_whether_they_hold_images(tmp_path: Path) -> None:
    """The first one by name did (img2dataset#207)."""
    (folder := tmp_path / "in").mkdir()
    pq.write_table(pa.table({"url": ["https://example.org/a.jpg"]}), folder / "aaa.parquet")
    pq.write_table(pa.table({"jpg": [picture(i) for i in range(9)]}), folder / "train-0.parquet")
    assert found(folder).kind == "parquet"


def test_a_table_without_images_among_others_is_ignored(tmp_path: Path) -> None:
    """It was a shard that fails (img2dataset#317)."""
    (folder := tmp_path / "in").mkdir()
    for name in ("train-0", "train-1"):
        pq.write_table(
            pa.table({"jpg": [picture(i) for i in range(9)]}), folder / f"{name}.parquet"
        )
    pq.write_table(pa.table({"image_name": ["a.jpg"], "text": ["t"]}), folder / "a.parquet")
    spec = JobSpec(input=str(folder), output=str(tmp_path / "out"), extend=True)
    store = open_output(spec.output)
    plan = settle_plan(store, spec)
    assert [each.reason for each in plan.ignored] == ["tables without images"]
    assert len(plan.shards) == 2
    again = settle_plan(store, spec)
    assert (again, again.ignored) == (plan, plan.ignored)


# ---- images with a table beside them


def described(folder: Path, **options: Any) -> dict[str, Any]:
    """The metadata of each image, by its name."""
    [images] = found(folder, **options).lists
    uris, texts = images.rows["uri"].to_pylist(), images.rows["metadata"].to_pylist()
    return {
        uri.rpartition("/")[2]: text and json.loads(text)
        for uri, text in zip(uris, texts, strict=True)
    }


def test_files_of_img2dataset_are_images_with_their_table(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = [f"{i:09d}" for i in range(6)]
    put(folder, *(f"00000/{name}.jpg" for name in names[:4]))
    put(folder, *(f"00000/{name}.{kind}" for name in names for kind in ("json", "txt")), data=b"{}")
    put(folder, "00000_stats.json", data=b"{}")
    rows = [{"url": f"https://example.org/{n}.jpg", "caption": n[-1], "key": n} for n in names]
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    assert described(folder) == {
        f"{name}.jpg": row for name, row in zip(names[:4], rows[:4], strict=True)
    }
    assert ignored(folder) == {
        "rows of tables without an image": 2,
        "not images (.json)": 7,
        "not images (.txt)": 6,
    }


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("metadata.jsonl", '{"file_name": "train/a.jpg", "n": 1}\n{"n": 2, "file_name": "b.jpg"}'),
        ("metadata.csv", "file_name,n\n./train/a.jpg,1\nb.jpg,2\n"),
        ("labels.csv", "n;id\n1;a\n2;b\n"),
        ("all.tsv", "filename\tn\nC:x\t9\na.jpg\t1\nb.jpg\t2\n"),
        ("one.jsonl", '{"images": ["train/a.jpg"], "n": 1}\n{"images": ["b.jpg"], "n": 2}\n'),
        (
            "hf.jsonl",
            '{"image": {"path": "train/a.jpg"}, "n": 1}\n{"image": {"path": "b.jpg"}, "n": 2}',
        ),
        ("win.csv", "path,n\ntrain\\a.jpg,1\n.\\b.jpg,2\n"),
        (
            "train/metadata.jsonl",
            '{"file_name": "a.jpg", "n": 1}\n{"file_name": "../b.jpg", "n": 2}',
        ),
    ],
)
def test_a_table_beside_images_is_their_metadata(tmp_path: Path, table: str, text: str) -> None:
    folder = put(tmp_path / "in", "train/a.jpg", "b.jpg", "sub/c.jpg")
    put(folder, table, data=text.encode())
    seen = described(folder)
    assert {name: row and int(row["n"]) for name, row in seen.items()} == {
        "a.jpg": 1,
        "b.jpg": 2,
        "c.jpg": None,
    }
    planned_again = planned(folder, carry=("n:int64",))
    assert len(planned_again.shards) == 1


@pytest.mark.parametrize(
    ("table", "content", "reason"),
    [
        ("a.csv", b"file_name\nx.jpg\n", "tables beside images"),
        ("a.csv", b"n\n1\n", "tables beside images"),
        ("a.csv", b"file_name\n" + b"\xff\xfe\xff", "unreadable tables"),
        ("a.parquet", b"no Parquet", "Parquet files beside images"),
        ("a.csv", b"", "tables beside images"),
        ("a.csv", b"file_name,n\na.jpg,1\na.jpg,2\n", "more rows about one image"),
    ],
)
def test_a_table_that_says_nothing_of_the_images_is_counted(
    tmp_path: Path, table: str, content: bytes, reason: str
) -> None:
    folder = put(tmp_path / "in", "a.jpg", *(f"{i}.jpg" for i in range(2, 12)))
    put(folder, table, data=content)
    assert len(taken(folder)) == 11
    assert ignored(folder) == {reason: 1}


def test_images_for_the_page_of_a_table_of_links_do_not_win(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "assets/banner.jpg")
    links = [f"https://example.org/{i:040d}.jpg" for i in range(3000)]
    pq.write_table(pa.table({"URL": links}), folder / "train.parquet", compression=None)
    assert found(folder).kind == "manifest"
    assert ignored(folder) == {"images beside tables": 1}


def test_a_text_is_a_list_only_where_it_names_images(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "README.txt", "LICENSE.txt", "config.json", data=b'{"a": 1}\n')
    with pytest.raises(InputMissing, match=r"3 files \(2 \.txt, 1 \.json\)"):
        found(folder)
    put(folder, "train.txt", data=b"a.jpg\nb.jpg\n")
    assert found(folder).kind == "manifest"
    assert ignored(folder) == {"not tables (.txt)": 2, "not tables (.json)": 1}


def test_an_included_name_is_taken_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "a.shard", data=tar(pictures(2)))
    put(folder, "b.jpg")
    assert taken(folder, include=("*.shard",)) == ["a.shard"]
    assert taken(folder, include=("*.shard",), input_format="webdataset") == ["a.shard"]
    assert ignored(folder, include=("*.shard",)) == {"not in --include": 1}


# ---- one file


def _tar(mode: str) -> bytes:
    return tar(pictures(2), mode=mode)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        *((f"a{end}", _tar("w"), "webdataset") for end in (".tar", ".TAR", "", ".bin", ".shard")),
        *((f"a{end}", _tar("w:gz"), "webdataset") for end in (".tar.gz", ".tgz", ".gz")),
        *((f"a{end}", _tar("w:bz2"), "webdataset") for end in (".tar.bz2", ".tbz2")),
        *((f"a{end}", _tar("w:xz"), "webdataset") for end in (".tar.xz", ".txz", ".x")),
        ("a.tar.zst", pa.compress(_tar("w"), "zstd", asbytes=True), "webdataset"),
        *((f"a{end}", picture(), "files") for end in (".jpg", ".jfif", "", ".data")),
        *((f"a{end}", _parquet(pa.table({"jpg": [b"x"]})), "parquet") for end in (".parquet", "")),
        ("a.pq", _parquet(pa.table({"url": ["a.jpg"]})), "manifest"),
        *((f"a{end}", b"file_name\na.jpg\n", "manifest") for end in (".csv", ".CSV", ".tsv")),
        ("a.jsonl", b'{"file_name": "a.jpg"}\n', "manifest"),
    ],
)
def test_the_kind_of_one_file_is_told_by_its_name_or_its_bytes(
    tmp_path: Path, name: str, data: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert found(tmp_path / name).kind == kind


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(("a.zip", b"PK\x03\x04"), ("a.pdf", b"%PDF-1.7"), ("a.txt.old", b"words"), ("a", b"")),
        *(("a.md", b"# words"), ("a.mp4", b"\0\0\0\x18ftypmp42"), ("a.npz", b"PK\x03\x04")),
        ("a.gz", gzip.compress(b"words, and no tar", mtime=0)),
    ],
)
def test_one_file_that_is_no_input_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes
) -> None:
    """A zip of images, for one (vision#3519), was taken for a tar."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputUnreadable, match=rf"/{name} has neither the name .* --input-format"):
        found(tmp_path / name)


def test_a_folder_of_nothing_to_read_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.zip", "b.zip", "c.pdf", ".d", data=b"PK\x03\x04")
    with pytest.raises(InputMissing, match=r"3 files \(2 \.zip, 1 \.pdf, ignored: 1 hidden\)"):
        found(tmp_path / "in")


@pytest.mark.parametrize("name", ["00000.tar", "train-0.parquet", "a.jpg"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    """A clone without `git lfs` (transformers#15325)."""
    put(tmp_path / "in", name, data=LFS)
    for path in (tmp_path / "in", tmp_path / "in" / name):
        with pytest.raises(InputUnreadable, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
            found(path)


# ---- outputs of ours


def dataset(folder: Path) -> Path:
    put(folder, "job.json", "plan/00000.parquet", "annotations/a.parquet", data=b"{}")
    return folder


def test_the_output_in_the_input_is_left_out(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "a.jpg", "sub/b.jpg")
    output = dataset(folder / "sub" / "out")
    put(output, "pages/thumb.jpg")
    assert taken(folder, output=f"{output}/") == ["a.jpg", "sub/b.jpg"]
    assert ignored(folder, output=str(output)) == {"in the output itself": 4}


def test_other_outputs_and_exports_in_the_input_are_left_out(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "a.jpg", "coco/images/a.jpg")
    dataset(folder / "earlier")
    put(folder, "coco/_EXPORT.json", data=b"{}")
    assert taken(folder) == ["a.jpg"]
    assert ignored(folder) == {"in other outputs of this tool": 3, "in exports of this tool": 2}
    assert taken(folder / "coco") == ["images/a.jpg"]  # that one is asked for


def test_patterns_do_not_hide_that_an_output_is_there(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    pq.write_table(pa.table({"jpg": [picture()]}), folder / "a.parquet")
    dataset(folder / "earlier")
    assert taken(folder, include=("*.parquet",)) == ["a.parquet"]


def test_an_input_in_the_output_is_refused(tmp_path: Path) -> None:
    out = put(tmp_path / "out", "in/a.jpg")
    (tmp_path / "link").symlink_to(out)
    for path in (out / "in", out / "in" / "a.jpg", out, tmp_path / "link" / "in"):
        with pytest.raises(SpecError, match="is inside the output"):
            found(path, output=str(out))


def test_a_dataset_of_ours_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a dataset of this tool, so it cannot be the input"):
        found(dataset(tmp_path / "in"))


def test_nothing_but_the_output_is_no_input(tmp_path: Path) -> None:
    dataset(tmp_path / "in" / "out")
    with pytest.raises(InputMissing, match="holds nothing but what is in the output"):
        found(tmp_path / "in", output=str(tmp_path / "in" / "out"))


# ---- globs


def test_a_pattern_is_an_input(tmp_path: Path) -> None:
    folder = put(tmp_path / "in", "a-1.tar", "a-2.tar", "b.tar", data=tar(pictures(1)))
    seen = discover(JobSpec(input=f"{folder}/a-{{1..2}}.tar", output=str(tmp_path / "out")))
    assert [info.uri.rpartition("/")[2] for info in seen.objects] == ["a-1.tar", "a-2.tar"]
