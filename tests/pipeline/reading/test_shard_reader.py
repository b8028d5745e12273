"""ShardReader: from a shard to tables of samples, rejections and one end row."""

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kosmos2_core.images.decode import decode_image
from pipeline.reading.shard_reader import GROUP_SIZE, ShardReader
from pipeline.schema import READ, ShardEnd
from pipeline.storage import InputStore, inputs
from tests.support.tar_shards import BROKEN, TAR_READER, tar_shard
from tests.support.tars import Member, picture, pictures, tar

TASKS = ("brief", "detailed")


def rows(tables: list[pa.Table], kind: str) -> list[dict]:
    return [row for table in tables for row in table[kind].drop_null().to_pylist()]


def end_of(tables: list[pa.Table]) -> ShardEnd:
    """The last row of all, and the only one of its kind."""
    [end] = rows(tables, "end")
    assert tables[-1]["end"][-1].as_py() == end
    return ShardEnd(**end)


# ---- tables


@pytest.mark.parametrize(
    ("members", "sizes"),
    [
        ([], [1]),
        (pictures(1), [2]),
        (pictures(GROUP_SIZE), [GROUP_SIZE, 1]),
        (pictures(GROUP_SIZE * 2 + 2), [GROUP_SIZE, GROUP_SIZE, 3]),
        # A group is so many samples, whatever becomes of them: a rejection has a row per task.
        (BROKEN + pictures(GROUP_SIZE), [GROUP_SIZE + 1, 2]),
    ],
    ids=["none", "one", "one group", "two and some", "a rejection"],
)
def test_tables_are_fixed_groups_of_samples(
    tmp_path: Path, members: list[Member], sizes: list[int]
) -> None:
    tables = list(TAR_READER.read(tar_shard(tmp_path, tar(members))))
    assert [table.num_rows for table in tables] == sizes
    assert all(table.schema.equals(READ) for table in tables)
    assert end_of(tables) == ShardEnd(samples=len(members))


def test_rows_are_in_the_order_of_the_archive(tmp_path: Path) -> None:
    tables = list(TAR_READER.read(tar_shard(tmp_path, tar(pictures(70)))))
    assert [row["index"] for row in rows(tables, "sample")] == list(range(70))


def test_each_picture_that_is_decoded_is_counted_and_timed(tmp_path: Path) -> None:
    reader = ShardReader(store=InputStore(), tasks=TASKS, exif="apply")
    list(reader.read(tar_shard(tmp_path, tar(BROKEN + pictures(5)))))
    assert (reader.decoded.take(), reader.decoded.take()) == (6, 0)
    assert reader.decode_s.take() > 0


def test_what_is_wrong_with_a_file_is_an_issue_of_its_row(tmp_path: Path) -> None:
    whole = picture(1, size=(400, 40))
    members = [("a.jpg", whole), ("b.jpg", whole[:-2]), ("c.jpg", whole[:-9])]
    tables = list(TAR_READER.read(tar_shard(tmp_path, tar(members))))
    assert {row["key"]: row["issues"] for row in rows(tables, "sample")} == {
        "a": ["extreme_aspect"],
        "b": ["missing_end", "extreme_aspect"],
    }
    reasons = {(row["key"], row["error_type"]) for row in rows(tables, "rejected")}
    assert reasons == {("c", "truncated_image")}


def test_a_sample_row_says_all_there_is_to_know(tmp_path: Path) -> None:
    data = picture(1, size=(40, 30))
    planned = tar_shard(tmp_path, tar([("0.json", b"[]"), ("0.jpg", data), ("0.txt", b"t")]))
    [row] = rows(list(TAR_READER.read(planned)), "sample")
    offset = row.pop("image_offset")
    assert (tmp_path / "a.tar").read_bytes()[offset:][: row["image_size"]] == data
    assert row.pop("image_sha256").hex() == hashlib.sha256(data).hexdigest()
    assert row == {
        "index": 0,
        "key": "0",
        "uri": f"file://{tmp_path}/a.tar",
        "member": "0.jpg",
        "image_size": len(data),
        "width": 40,
        "height": 30,
        "exif_orientation": 1,
        "metadata": '{"txt": "t"}',
        "issues": ["metadata_invalid", "tiny_image"],
    }


def test_of_a_part_just_its_samples_are_read_but_all_are_counted(tmp_path: Path) -> None:
    members = pictures(150)
    whole = rows(list(TAR_READER.read(tar_shard(tmp_path, tar(members)))), "sample")
    part = replace(tar_shard(tmp_path, tar(members)), only=(3, 70, 71))
    tables = list(TAR_READER.read(part))
    assert rows(tables, "sample") == [whole[index] for index in (3, 70, 71)]
    assert end_of(tables) == ShardEnd(samples=150)
    assert all(table.num_rows for table in tables)


def test_a_compressed_archive_has_neither_offset_nor_size(tmp_path: Path) -> None:
    [row] = rows(
        list(TAR_READER.read(tar_shard(tmp_path, tar(pictures(1), mode="w:gz")))), "sample"
    )
    assert (row["image_offset"], row["image_size"]) == (None, None)


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_pixels_are_those_of_decode_image(tmp_path: Path, exif: str) -> None:
    lying = io.BytesIO()
    orientation = Image.Exif()
    orientation[0x0112] = 6
    Image.open(io.BytesIO(picture(3))).save(lying, "JPEG", exif=orientation)
    images = [picture(0), picture(1, kind="PNG"), lying.getvalue()]
    reader = ShardReader(store=InputStore(), tasks=TASKS, exif=exif)
    members = [(f"{i}.jpg", image) for i, image in enumerate(images)]
    [table] = reader.read(tar_shard(tmp_path, tar(members)))
    for found, row, image in zip(table["pixels"], rows([table], "sample"), images, strict=False):
        expected = decode_image(image, exif=exif)
        pixels = np.frombuffer(found.as_py(), np.uint8).reshape(3, 224, 224)
        assert np.array_equal(pixels, expected.pixels)
        assert (row["width"], row["height"]) == (expected.width, expected.height)
        assert row["exif_orientation"] == expected.exif_orientation


@pytest.mark.parametrize("isolated", [False, True])
def test_fast_decoding_reaches_the_decoder(tmp_path: Path, isolated: bool) -> None:
    large = io.BytesIO()
    Image.effect_noise((1000, 1000), 90).save(large, "JPEG")
    exact, fast = (decode_image(large.getvalue(), decode=mode) for mode in ("exact", "fast"))
    assert not np.array_equal(exact.pixels, fast.pixels)
    reader = ShardReader(store=InputStore(), tasks=TASKS, exif="apply", decode="fast")
    shard = tar_shard(tmp_path, tar([("0.jpg", large.getvalue())]))
    [table] = reader.read_isolated(shard) if isolated else reader.read(shard)
    assert table["pixels"][0].as_py() == fast.pixels.tobytes()


def test_reading_twice_gives_the_same_tables(tmp_path: Path) -> None:
    planned = tar_shard(tmp_path, tar(pictures(40) + BROKEN + pictures(40)[30:])[:-2000])
    first, second = list(TAR_READER.read(planned)), list(TAR_READER.read(planned))
    assert len(first) == len(second)
    assert all(a.equals(b) for a, b in zip(first, second, strict=True))


# ---- what is wrong with a sample


@pytest.mark.parametrize(
    ("data", "stage", "error_type"),
    [
        (b"", "decode", "empty_image"),
        (b"no picture", "decode", "unknown_format"),
        (picture()[:-30], "decode", "truncated_image"),
        (picture(kind="PNG")[:40] + b"\xff" * 40, "decode", "corrupt_image"),
        (None, "read", "no_image"),
    ],
    ids=["empty", "text", "cut JPEG", "broken PNG", "no image"],
)
def test_a_bad_sample_is_rejected_once_per_task(
    tmp_path: Path, data: bytes | None, stage: str, error_type: str
) -> None:
    bad = ("bad.txt", b"") if data is None else ("bad.jpg", data)
    planned = tar_shard(tmp_path, tar([*pictures(1), bad, ("last.jpg", picture())]))
    tables = list(TAR_READER.read(planned))
    rejected = rows(tables, "rejected")
    assert [(r["index"], r["task"]) for r in rejected] == [(1, "brief"), (1, "detailed")]
    for row in rejected:
        assert (row["key"], row["stage"], row["error_type"]) == ("bad", stage, error_type)
        assert (row["shard_id"], row["uri"]) == (planned.shard_id, planned.uri)
        assert row["message"]
        assert not row["retriable"]
    assert [row["key"] for row in rows(tables, "sample")] == ["0000", "last"]
    assert end_of(tables) == ShardEnd(samples=3)


def test_a_broken_archive_ends_truncated_with_the_lost_sample_rejected(tmp_path: Path) -> None:
    data = tar(pictures(3))
    cut = data.index(b"0002.jpg") + 600
    tables = list(TAR_READER.read(tar_shard(tmp_path, data[:cut])))
    assert [row["index"] for row in rows(tables, "sample")] == [0, 1]
    rejected = rows(tables, "rejected")
    assert [(r["index"], r["task"]) for r in rejected] == [(2, task) for task in TASKS]
    assert {(r["stage"], r["error_type"]) for r in rejected} == {("read", "truncated_archive")}
    assert end_of(tables) == ShardEnd(samples=3, truncated=True)


# ---- what is wrong with the shard


@pytest.mark.parametrize(
    ("meanwhile", "error_type"),
    [
        (lambda path: path.write_bytes(tar(pictures(3))), "input_changed"),
        (lambda path: path.write_bytes(b""), "input_changed"),
        (lambda path: os.utime(path, ns=(1, 1)), "input_changed"),
        (lambda path: path.unlink(), "input_missing"),
    ],
    ids=["other content", "emptied", "touched", "deleted"],
)
@pytest.mark.parametrize("before", [tar(pictures(2)), b""], ids=["tar", "empty file"])
def test_an_input_that_is_not_the_planned_one_is_not_read(
    tmp_path: Path, before: bytes, meanwhile, error_type: str
) -> None:
    planned = tar_shard(tmp_path, before)
    meanwhile(tmp_path / "a.tar")
    [table] = TAR_READER.read(planned)
    assert table.num_rows == 1
    end = end_of([table])
    assert (end.samples, end.error_type, end.retriable) == (0, error_type, False)
    assert planned.uri in end.message


def test_an_input_that_changes_while_it_is_read_fails_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BLOCK_BYTES", 4096)
    planned = tar_shard(tmp_path, tar(pictures(GROUP_SIZE * 3)))
    tables = TAR_READER.read(planned)
    first = next(tables)
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    end = end_of([first, *tables])
    assert end.error_type == "input_changed"
    assert end.samples >= GROUP_SIZE


def test_an_archive_that_is_broken_because_it_changed_is_not_taken_for_a_broken_one(
    tmp_path: Path,
) -> None:
    data = tar(pictures(GROUP_SIZE * 2))
    planned = tar_shard(tmp_path, data[: data.index(b"0127.jpg") + 600])
    tables = TAR_READER.read(planned)
    first = next(tables)  # by now all of its bytes are read, but not yet understood
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    end = end_of([first, *tables])
    assert (end.error_type, end.truncated) == ("input_changed", False)
