"""The WebDataset reader: what a tar means, and what it does with broken ones."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kosmos2_core.images.formats import IMAGE_EXTENSIONS
from pipeline.errors import StorageError
from pipeline.formats import sample as limiting
from pipeline.formats.sample import BrokenArchive, Sample, Unreadable
from pipeline.formats.tar import webdataset
from pipeline.formats.tar.webdataset import read_samples
from tests.support.tars import HUGE_SIZE, NEGATIVE_SIZE, Member, header, picture, tar

END_MARKER = bytes(1024)


def read(data: bytes) -> tuple[list[Sample | Unreadable], BrokenArchive | None]:
    found: list[Sample | Unreadable] = []
    try:
        found.extend(read_samples(io.BytesIO(data)))  # extend keeps what came before an error
    except BrokenArchive as broken:
        return found, broken
    return found, None


def samples(data: bytes) -> list[Any]:
    found, broken = read(data)
    assert broken is None
    return found


def files(names: Iterable[str]) -> list[Member]:
    return [(name, name.encode()) for name in names]


def compressed(members: Iterable[Member], mode: str) -> bytes:
    if mode != "zstd":
        return tar(members, mode=mode)
    data: bytes = pa.compress(tar(members), "zstd", asbytes=True)
    return data


def linked(name: str, kind: bytes, to: str = "0.jpg") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info, b""


# ---- what a sample is


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["0.jpg", "0.json", "0.txt", "1.jpg"], ["0", "1"]),
        (["0.json", "0.jpg"], ["0"]),
        (["x/0.jpg", "y/0.jpg", "0.jpg"], ["x/0", "y/0", "0"]),
        (["./0.jpg", "./1.jpg"], ["./0", "./1"]),
        (["v1.0/0.jpg", "v1.0/0.txt"], ["v1.0/0"]),
        (["0.jpg", "0.seg.png", "0.1.jpg"], ["0"]),  # the key ends at the first dot
        (["0", "0.jpg"], ["0"]),
        (["a b.jpg", "ä/ß.jpg", "日本.jpg"], ["a b", "ä/ß", "日本"]),
    ],
)
def test_a_sample_is_a_run_of_members_with_one_key(names: list[str], keys: list[str]) -> None:
    found = samples(tar(files(names)))
    assert [s.key for s in found] == keys
    assert [s.index for s in found] == list(range(len(keys)))
    assert all(isinstance(s, Sample) for s in found)


@pytest.mark.parametrize("extension", [*sorted(IMAGE_EXTENSIONS), "JPG", "Png", "TIFF"])
def test_image_extensions_in_any_case(extension: str) -> None:
    [found] = samples(tar([(f"0.{extension}", b"bytes")]))
    assert (found.data, found.member, found.metadata) == (b"bytes", f"0.{extension}", None)


def test_the_first_image_of_a_sample_is_its_image() -> None:
    [found] = samples(tar(files(["0.png", "0.jpg"])))
    assert found.member == "0.png"


@pytest.mark.parametrize(
    "member",
    [
        linked("0", tarfile.DIRTYPE),
        linked("1.sh", tarfile.FIFOTYPE),
        linked("1.sh", tarfile.SYMTYPE, "bin/sh"),
        (tarfile.TarInfo(".jpg"), b"hidden"),
        (tarfile.TarInfo("._0.jpg"), b"macOS writes these"),
        (tarfile.TarInfo("x/.DS_Store"), b""),
        (tarfile.TarInfo("Thumbs.db"), b""),
        (tarfile.TarInfo("./__MACOSX/0.jpg"), b""),
    ],
    ids=lambda member: member[0].name,
)
def test_what_is_no_sample_is_ignored_and_splits_none(
    member: tuple[tarfile.TarInfo, bytes],
) -> None:
    [found] = samples(tar([("0.jpg", b"bytes"), member, ("0.txt", b"words")]))
    assert (found.key, json.loads(found.metadata)) == ("0", {"txt": "words"})


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80"])
@pytest.mark.parametrize("archive_format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_that_are_not_utf8_become_valid_text(raw: bytes, archive_format: int) -> None:
    """And stay apart: two of them were one name before (ratarmount#32)."""
    name = raw.decode("utf-8", "surrogateescape")
    members = [(f"{name}/{name}.jpg", b"bytes"), (f"{name}/\udcff.jpg", b"other")]
    found, other = samples(tar(members, archive_format=archive_format))
    assert f"\\x{raw[-1]:x}" in found.key
    assert found.member == found.key.encode().decode() + ".jpg"
    assert (other.data, other.key.rpartition("/")[2]) == (b"other", r"\xff")


# ---- names with more than one dot, other names


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["22.05.png", "22.06.png"], ["22.05", "22.06"]),
        (["a/x.left.png", "a/x.right.png", "y.left.png"], ["a/x.left", "a/x.right", "y.left"]),
        (["s0.input.jpg", "s0.outputs.txt", "s1.input.jpg"], ["s0.input", "s1.input"]),
        ([f"film.{i:04d}.jpg" for i in range(60)], [f"film.{i:04d}" for i in range(60)]),
        (["0.seg.png", "0.jpg", "0.txt"], ["0"]),
    ],
)
def test_images_without_a_plain_extension_are_samples_each(
    names: list[str], keys: list[str]
) -> None:
    found = samples(tar(files(names)))
    assert [s.key for s in found] == keys
    assert [s.data.decode() for s in found] == [s.member for s in found]


def test_fields_go_with_the_image_of_their_name() -> None:
    members = [
        *(("p.v1.jpg", b"1"), ("p.v1.json", b'{"n": 1}'), ("p.v2.jpg", b"2")),
        *(("p.v2.json", b'{"n": 2}'), ("p.v2.notes.txt", b"no"), ("p.txt", b"both")),
    ]
    found = samples(tar(members))
    assert [(s.key, json.loads(s.metadata)) for s in found] == [
        ("p.v1", {"n": 1, "txt": "both"}),
        ("p.v2", {"n": 2, "txt": "both"}),
    ]


def test_other_images_of_a_sample_are_an_issue() -> None:
    """They were lost without a word (webdataset#20, #157)."""
    found = samples(tar(files(["0.jpg", "0.png", "1.depth.png", "1.jpg", "2.jpg", "2.seg.png"])))
    assert [(s.key, s.member, s.issues) for s in found] == [
        (key, f"{key}.jpg", ("more_images",)) for key in "012"
    ]


@pytest.mark.parametrize("asked", ["left.png", ".LEFT.png"])
def test_the_image_of_a_sample_can_be_named(asked: str) -> None:
    data = tar(files(["0.jpg", "0.left.png", "0.right.png", "1.left.PNG", "2.right.png"]))
    first, second, third = read_samples(io.BytesIO(data), asked)
    assert [(s.key, s.member) for s in (first, second)] == [
        ("0", "0.left.png"),
        ("1", "1.left.PNG"),
    ]
    assert first.issues == ()
    assert (third.error_type, third.message) == (
        "no_image",
        "the sample has no image among its members (.right.png)",
    )


@pytest.mark.parametrize("name", ["0", "0.img", "0.JPG_original", "0.image.bin", "d/0.0"])
def test_an_image_is_told_by_its_bytes_where_its_name_says_nothing(name: str) -> None:
    [found] = samples(
        tar([(name, picture()), ("0.cls", b"3")] if name == "0" else [(name, picture())])
    )
    assert (found.data, found.member) == (picture(), name)


def test_an_archive_in_the_archive_is_named() -> None:
    """ILSVRC2012_img_train.tar holds 1,000 of them (webdataset#247)."""
    inner = tar(files(["0.jpg"]))
    found = samples(tar([("n01440764.tar", inner), ("n01443537.tar", inner)]))
    assert [s.error_type for s in found] == ["no_image"] * 2
    assert found[0].message == (
        "the sample has no image among its members (.tar); an archive inside an archive is not "
        "read, so unpack it"
    )


# ---- links


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (tarfile.LNKTYPE, "./x/0.jpg"),
        (tarfile.SYMTYPE, "../x/0.jpg"),
        (tarfile.SYMTYPE, "./../x/./0.jpg"),
    ],
)
def test_a_link_to_a_member_before_it_is_that_image(kind: bytes, to: str) -> None:
    data = tar([("x/0.jpg", picture(0)), linked("y/1.jpg", kind, to), ("y/1.txt", b"words")])
    _, found = samples(data)
    assert (found.key, found.data, found.metadata) == ("y/1", picture(0), '{"txt": "words"}')
    assert data[found.image_offset :].startswith(picture(0))


@pytest.mark.parametrize(
    ("member", "mode", "said"),
    [
        (linked("1.jpg", tarfile.SYMTYPE, "../../blobs/ab12"), "w", "symbolic link to ../../blobs"),
        (linked("1.jpg", tarfile.LNKTYPE, "2.jpg"), "w", "hard link to 2.jpg.*--hard-dereference"),
        (linked("1.jpg", tarfile.LNKTYPE), "w:gz", "only in uncompressed tars"),
        (linked("1.jpg", tarfile.FIFOTYPE), "w", "a device or a pipe"),
    ],
)
def test_a_link_that_leads_nowhere_is_a_sample_with_a_reason(
    member: tuple[tarfile.TarInfo, bytes], mode: str, said: str
) -> None:
    first, found, _ = samples(tar([("0.jpg", b"0"), member, ("2.jpg", b"2")], mode=mode))
    assert first.key == "0"
    assert (found.key, found.member, found.error_type) == ("1", "1.jpg", "linked_member")
    assert re.search(said, found.message)


# ---- metadata


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"json": b'{"a": 1}'}, {"a": 1}),
        ({"txt": "grün".encode()}, {"txt": "grün"}),
        ({"txt": b"caf\xe9"}, {"txt": "caf\ufffd"}),
        ({"json": b'{"a": 1}', "txt": b"t"}, {"a": 1, "txt": "t"}),
        ({"json": b'{"txt": "mine"}', "txt": b"t"}, {"txt": "t"}),
        ({"txt": b"t", "json": b'{"txt": "mine"}'}, {"txt": "t"}),
        ({"JSON": b'{"a": 1}'}, {"a": 1}),
        ({"json": b'{"a": NaN, "b": [Infinity, -Infinity]}'}, {"a": None, "b": [None, None]}),
        ({"json": rb'{"a": "\ud800!"}'}, {"a": "?!"}),
        ({"cls": b"3", "npy": b"\x00"}, None),
        ({"json": b"{}"}, None),
    ],
)
def test_json_and_txt_become_strict_json(
    members: dict[str, bytes], expected: dict[str, Any] | None
) -> None:
    others = [(f"0.{extension}", data) for extension, data in members.items()]
    [found] = samples(tar([("0.jpg", b"bytes"), *others]))
    assert found.issues == ()
    if expected is None:
        assert found.metadata is None
    else:
        assert json.loads(found.metadata, parse_constant=pytest.fail) == expected
        found.metadata.encode("utf-8")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[1]", b'"text"', b"null", b"NaN", b"{'a': 1}", b'{"a": 1e999}'),
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: content[:12].decode(),
)
def test_invalid_metadata_are_an_issue_not_a_rejection(content: bytes) -> None:
    [found] = samples(tar([("0.jpg", b"bytes"), ("0.json", content), ("0.txt", b"t")]))
    assert (found.data, found.issues) == (b"bytes", ("metadata_invalid",))
    assert json.loads(found.metadata) == {"txt": "t"}


@pytest.mark.parametrize(
    "member", [("0.txt", b"x" * ((1 << 20) + 1)), ("0.json", b'{"a": "' + b"x" * (1 << 20) + b'"}')]
)
def test_too_much_metadata_is_left_out_and_an_issue_not_a_rejection(member: Member) -> None:
    [found] = samples(tar([("0.jpg", b"bytes"), member]))
    assert (found.data, found.metadata, found.issues) == (b"bytes", None, ("metadata_too_large",))


def test_too_much_metadata_in_all_is_left_out_from_there_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiting, "MAX_SHARD_METADATA_CHARS", 25)  # {"txt": "..."} has 14
    members = [(f"{i}.{kind}", b"...") for i in range(3) for kind in ("jpg", "txt")]
    found = samples(tar(members))
    assert [s.metadata is None for s in found] == [False, True, True]
    assert [s.issues for s in found] == [(), *[("metadata_too_large",)] * 2]


# ---- samples without an image


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0.json", "1.jpg"], ["no_image", None]),
        (["0.cls"], ["no_image"]),
        (["0.jpg", "0.jpg", "0.txt", "1.jpg"], [None, "duplicate_key", None]),
        (["0.jpg", "1.jpg", "0.txt"], [None, None, "duplicate_key"]),
        (["0.jpg", "1.jpg", "0.jpg", "0.txt"], [None, None, "duplicate_key"]),
        (["0.jpg", "large.jpg", "large.txt", "1.jpg"], [None, "member_too_large", None]),
    ],
)
def test_a_sample_without_a_usable_image_takes_an_index(
    names: list[str], expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 8)
    found = samples(tar(files(names)))
    assert [getattr(s, "error_type", None) for s in found] == expected
    assert [s.index for s in found] == list(range(len(expected)))


# ---- the way back to the bytes


@pytest.mark.parametrize(
    "archive_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_the_offset_points_at_the_bytes_of_the_image(archive_format: int) -> None:
    members = [
        ("0.json", b"{}"),
        ("0.jpg", picture(0)),
        ("d" * 90 + "/1.png", picture(1, kind="PNG")),
    ]
    if archive_format != tarfile.USTAR_FORMAT:
        members.append(("long" * 60 + "/ü.webp", picture(2, kind="WEBP")))
    data = tar(members, archive_format=archive_format)
    images = [content for name, content in members if not name.endswith("json")]
    found = samples(data)
    assert [s.data for s in found] == images
    assert [data[s.image_offset : s.image_offset + len(s.data)] for s in found] == images


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "zstd"])
def test_a_compressed_archive_has_no_offsets(mode: str) -> None:
    found = samples(compressed(files(["0.jpg", "1.jpg"]), mode))
    assert [(s.data, s.image_offset) for s in found] == [(b"0.jpg", None), (b"1.jpg", None)]


def test_a_sparse_member_has_no_offset() -> None:
    info = tarfile.TarInfo("0.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "0.jpg",
        "GNU.sparse.realsize": "12",
    }
    extents = b"1\n8\n4\n".ljust(512, b"\0")
    [found] = samples(tar([(info, extents + b"data")]))
    assert (found.data, found.image_offset) == (bytes(8) + b"data", None)


# ---- damaged archives: all that is whole, then BrokenArchive


# Blocks of 512: 0 header, 1-2 data | 3 header, 4 data | 5 header, 6-7 data | 8 header, 9 data | end
FOUR = tar(
    [("0.jpg", b"0" * 700), ("0.json", b'{"a": 0}'), ("1.jpg", b"1" * 700), ("2.jpg", b"2")],
    archive_format=tarfile.USTAR_FORMAT,
)


@pytest.mark.parametrize(
    ("cut", "whole", "lost"),
    [
        pytest.param(0, [], ("", None), id="empty file"),
        pytest.param(100, [], ("", None), id="first header"),
        pytest.param(512, [], ("0", "0.jpg"), id="before the first data"),
        pytest.param(512 + 10, [], ("0", "0.jpg"), id="first data"),
        pytest.param(512 + 710, ["0"], ("", None), id="first padding"),
        pytest.param(3 * 512, ["0"], ("", None), id="between members of a sample"),
        pytest.param(4 * 512 + 3, [], ("0", "0.json"), id="metadata"),
        pytest.param(4 * 512 + 20, ["0"], ("", None), id="padding of metadata"),
        pytest.param(5 * 512, ["0"], ("", None), id="between samples"),
        pytest.param(5 * 512 + 200, ["0"], ("", None), id="second header"),
        pytest.param(6 * 512 + 512, ["0"], ("1", "1.jpg"), id="second data"),
        pytest.param(10 * 512, ["0", "1", "2"], ("", None), id="no end marker"),
        pytest.param(10 * 512 + 500, ["0", "1", "2"], ("", None), id="end marker"),
    ],
)
def test_a_cut_archive_gives_what_is_whole_then_says_so(
    cut: int, whole: list[str], lost: tuple[str, str | None]
) -> None:
    found, broken = read(FOUR[:cut])
    assert [s.key for s in found] == whole
    assert broken is not None
    assert (broken.lost.key, broken.lost.member) == lost
    assert (broken.lost.index, broken.lost.error_type) == (len(whole), "truncated_archive")


def test_a_sample_that_is_cut_before_its_image_is_the_lost_one() -> None:
    found, broken = read(tar([("0.json", b"{}"), ("0.jpg", b"0")])[: 2 * 512])
    assert found == []
    assert broken is not None
    assert broken.lost.key == "0"


def test_a_cut_within_an_ignored_member_loses_no_sample() -> None:
    found, broken = read(tar([("0.jpg", b"0"), (".hidden", b"h" * 900)])[: 3 * 512 + 10])
    assert [s.key for s in found] == ["0"]
    assert broken is not None


@pytest.mark.parametrize("garbage", [b"\x01" * 512, b"garbage".ljust(512), b"\xff" * 512])
def test_a_damaged_header_ends_the_archive_aloud(garbage: bytes) -> None:
    found, broken = read(FOUR[: 5 * 512] + garbage + FOUR[6 * 512 :])
    assert [s.key for s in found] == ["0"]
    assert broken is not None
    assert "the header at byte 2560 is damaged" in broken.lost.message


@pytest.mark.parametrize("ending", [FOUR, b"x", bytes(3 << 20) + b"x"])
def test_data_after_the_end_marker_are_not_lost_in_silence(ending: bytes) -> None:
    found, broken = read(FOUR + ending)
    assert [s.key for s in found] == ["0", "1", "2"]
    assert broken is not None
    assert "after the end marker" in broken.lost.message


@pytest.mark.parametrize(
    "data",
    [END_MARKER, bytes(512), bytes(10240), tar([]), tar([], mode="w:gz")],
    ids=["end", "block", "record", "tar", "tar.gz"],
)
def test_an_archive_of_nothing_has_no_samples(data: bytes) -> None:
    assert samples(data) == []


@pytest.mark.parametrize("data", [b"x", b"x" * 5000, b"\xff\xd8\xff" * 400, b"PK\x03\x04" * 400])
def test_what_is_no_archive_is_a_broken_one(data: bytes) -> None:
    found, broken = read(data)
    assert found == []
    assert broken is not None


TWO_HUNDRED = tar((f"{i:03d}.jpg", picture(i, size=(64, 64), kind="PNG")) for i in range(200))


@pytest.mark.parametrize(
    "damage",
    [
        lambda gz: gz[:-1],
        lambda gz: gz[:-8],
        lambda gz: gz[: len(gz) // 2],
        lambda gz: gz[:-8] + bytes(8),
        lambda gz: gz + b"garbage",
    ],
    ids=["last byte", "no trailer", "half", "checksum", "garbage after"],
)
def test_a_broken_gzip_gives_what_is_whole_then_says_so(damage: Any) -> None:
    found, broken = read(damage(gzip.compress(TWO_HUNDRED, mtime=0)))
    whole = samples(TWO_HUNDRED)
    assert broken is not None
    assert [(s.key, s.data) for s in found] == [(s.key, s.data) for s in whole[: len(found)]]


def test_a_gzip_that_is_damaged_within_is_broken() -> None:
    data = gzip.compress(TWO_HUNDRED, mtime=0)
    middle = len(data) // 2
    assert read(data[:middle] + b"\xff" * 50 + data[middle + 50 :])[1] is not None


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz", "zstd"])
def test_other_compressions_break_in_the_same_way(mode: str) -> None:
    data = compressed(files(["0.jpg"]), mode)
    for damaged in (data[:-20], data[:30] + b"\xff" * 8 + data[38:]):
        assert read(damaged)[1] is not None


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(header("1.jpg", NEGATIVE_SIZE), id="negative size"),
        pytest.param(header("1.cls", HUGE_SIZE), id="huge size"),
        pytest.param(header("1.jpg", HUGE_SIZE, b"x"), id="huge pax header"),
        pytest.param(header("1.jpg", HUGE_SIZE, b"L"), id="huge long name"),
        pytest.param(header("1.jpg", NEGATIVE_SIZE, b"L"), id="negative long name"),
        pytest.param(header("1.jpg", b"00000000000\0", b"L") * 5000, id="names of names"),
        pytest.param(header("1.jpg", b"00000001000\0", b"S"), id="sparse"),
    ],
)
@pytest.mark.timeout(30)
def test_a_hostile_header_neither_hangs_nor_escapes(hostile: bytes) -> None:
    found, broken = read(tar([("0.jpg", b"bytes")])[:1024] + hostile)
    assert [s.key for s in found] == ["0"]
    assert broken is not None


MIXED = tar(
    [
        *(("0.jpg", b"0" * 700), ("0.json", b'{"a": 0}'), ("0.txt", b"t")),
        *(("folder/1.json", b"[]"), ("folder/1.png", b"1" * 512)),
        *((".hidden", b"h"), ("2.txt", b"no image")),
        *(("long" * 50 + "/3.jpg", b"3" * 1500), ("4.jpg", b"4"), ("0.jpg", b"again")),
    ]
)


MIXED_END = -(-len(MIXED.rstrip(b"\0")) // 512) * 512 + 512  # one block of zeros says enough


@pytest.mark.parametrize("archive", [MIXED, gzip.compress(MIXED, mtime=0)], ids=["tar", "tar.gz"])
def test_a_tar_cut_anywhere_gives_a_prefix_and_is_broken(archive: bytes) -> None:
    whole = samples(archive)
    gist = [(s.index, s.key, s.member, getattr(s, "data", s.key)) for s in whole]

    @settings(derandomize=True, max_examples=300, deadline=None, database=None)
    @given(st.integers(0, len(archive) - 1))
    @example(0)
    @example(len(archive) - 1)
    def check(cut: int) -> None:
        found, broken = read(archive[:cut])
        assert [(s.index, s.key, s.member, getattr(s, "data", s.key)) for s in found] == gist[
            : len(found)
        ]
        is_whole = archive is MIXED and cut >= MIXED_END
        assert (broken is None) == is_whole
        assert is_whole or broken.lost.index == len(found)
        again, broken_again = read(archive[:cut])
        assert (again, broken and broken.lost) == (found, broken_again and broken_again.lost)

    check()


@settings(derandomize=True, max_examples=400, deadline=None, database=None)
@given(
    st.integers(0, len(MIXED) // 512 - 1),
    st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_a_tar_changed_anywhere_raises_nothing_but_broken_archive(
    block: int, changes: list[tuple[int, int]], has_right_checksum: bool
) -> None:
    data = bytearray(MIXED)
    for position, value in changes:
        data[block * 512 + position] = value
    if has_right_checksum:
        data[block * 512 + 148 : block * 512 + 156] = b" " * 8
        checksum = sum(data[block * 512 : block * 512 + 512])
        data[block * 512 + 148 : block * 512 + 156] = b"%06o\0 " % checksum
    read(bytes(data))


# ---- the file beneath


def test_trouble_with_the_storage_is_not_taken_for_a_broken_archive() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 512 * 5:
                raise StorageError("the network is down")
            return super().read(size)

    with pytest.raises(StorageError, match="network"):
        list(read_samples(Failing(FOUR)))


def test_members_that_are_through_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tarfile.TarFile] = []
    really = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda **kw: opened.append(really(**kw)) or opened[0])
    for _ in read_samples(io.BytesIO(TWO_HUNDRED)):
        assert len(opened[0].members) <= 1
