"""Tars as nobody should send them: seeded ways to write one wrongly, and to spoil a sound one."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable

import numpy as np

from tests.hostile.spoiling import Spoil, cut, flip
from tests.support.tars import HUGE_SIZE, NEGATIVE_SIZE, Member, header, picture, tar

Written = Member | tuple[tarfile.TarInfo, bytes]

_BLOCK = tarfile.BLOCKSIZE


def octal(size: int) -> bytes:
    return b"%011o\0" % size


# ---- ways to write a tar


def sound(rng: np.random.Generator) -> bytes:
    """Five samples with metadata, in one of the formats and compressions."""
    members: list[Written] = []
    for i in range(5):
        members += [(f"{i}.jpg", picture(i)), (f"{i}.json", b'{"n": %d}' % i)]
    if rng.random() < 0.3:
        members.append(("long" * 60 + "/5.jpg", picture(5)))
    formats = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    data = tar(members, archive_format=int(rng.choice(formats)))
    compress = (bytes, bytes, _gzipped, bz2.compress, lzma.compress)[rng.integers(5)]
    return compress(data)


def odd(rng: np.random.Generator) -> bytes:
    """Members of all kinds in any order, each right by the format."""
    members: list[Written] = []
    for _ in range(rng.integers(1, 12)):
        members.append(_ODDITIES[rng.integers(len(_ODDITIES))](rng))
    return tar(members, archive_format=int(rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))))


_STEMS = (
    *("0", "1", "2", "/etc/0", "../../0", "..", "a/../b", "a//b", "./0", "C:\\0", "-rf", "a" * 200),
    *("\"'<&>", "🐈", "\n\t", "\u202e", "%s%n", "$(id)", "\udcff", "naïve", " ", "0" * 5000),
)
_EXTENSIONS = (".jpg", ".png", ".JPG", ".json", ".txt", "", ".", ".jpg.jpg")


def _name(rng: np.random.Generator) -> str:
    return _STEMS[rng.integers(len(_STEMS))] + _EXTENSIONS[rng.integers(len(_EXTENSIONS))]


def _picture(rng: np.random.Generator) -> Written:
    return _name(rng), picture(int(rng.integers(9)))


def _bytes(rng: np.random.Generator) -> Written:
    return _name(rng), rng.bytes(int(rng.integers(2000)))


def _special(rng: np.random.Generator) -> Written:
    """A directory, link, device, pipe, or of a type that nobody knows."""
    info = tarfile.TarInfo(_name(rng))
    info.type = b"1234567VZ"[(kind := int(rng.integers(9))) : kind + 1]
    info.linkname = _name(rng)
    info.size = 0
    return info, b""


def _extended(rng: np.random.Generator) -> Written:
    """A pax header that says odd things."""
    info = tarfile.TarInfo(_name(rng))
    key = rng.choice(["path", "size", "mtime", "comment", "GNU.sparse.size", "GNU.sparse.major"])
    value = rng.choice(["", "-1", "0", "99999999999999999999", "x", "../../0.jpg", "1", "é" * 900])
    info.pax_headers = {str(key): str(value)}
    return info, picture()


_ODDITIES: tuple[Callable[[np.random.Generator], Written], ...] = (
    *(_picture, _picture, _bytes, _special, _extended),
)


# ---- ways to spoil one


def _without_end(rng: np.random.Generator, data: bytes) -> bytes:
    return data.rstrip(b"\0")


def _flipped(rng: np.random.Generator, data: bytes) -> bytes:
    return flip(rng, data, most=8)


def _with_block(rng: np.random.Generator, data: bytes) -> bytes:
    """Garbage, zeros or a lying header between the members."""
    kinds = [b"0", b"1", b"5", b"L", b"K", b"x", b"g", b"S", b"N"]
    sizes = [NEGATIVE_SIZE, HUGE_SIZE, octal(2**32), octal(511), b"garbage".ljust(12), bytes(12)]
    lying = header("9.jpg", sizes[rng.integers(len(sizes))], kinds[rng.integers(len(kinds))])
    block = (rng.bytes(_BLOCK), bytes(_BLOCK), bytes(2 * _BLOCK), lying)[rng.integers(4)]
    at = int(rng.integers(len(data) // _BLOCK + 1)) * _BLOCK
    return data[:at] + block + data[at:]


def _without_block(rng: np.random.Generator, data: bytes) -> bytes:
    at = int(rng.integers(len(data) // _BLOCK + 1)) * _BLOCK
    return data[:at] + data[at + _BLOCK :]


def _twice(rng: np.random.Generator, data: bytes) -> bytes:
    """Two archives in one file; or the second one's members, all of them duplicates."""
    return data + data if rng.random() < 0.5 else data.rstrip(b"\0") + data


def _untouched(rng: np.random.Generator, data: bytes) -> bytes:
    return data


SPOILS: tuple[Spoil, ...] = (
    *(cut, _without_end, _flipped, _with_block, _without_block, _twice, _untouched),
)


# ---- files that no accident makes


def bombs() -> dict[str, tuple[bytes, set[str]]]:
    """Small files that ask for much, and the rejections that each ends in."""
    one = tar([("0.jpg", picture())])
    first = one[: _BLOCK * (1 + -(-len(picture()) // _BLOCK))]
    part, parts = bytes(1 << 20), 260  # each a stream of its own, which is compressed once
    huge, some = parts * len(part), 2 << 20
    end = bytes(2 * _BLOCK)
    numbers = b"9999999\n" + b"1\n" * (some // 2)  # how many extents, and their places
    sparse_map = _pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    sparse_map += header("1.jpg", octal(len(numbers))) + numbers
    for_all = (_pax({f"k{i}": "v" * 9000}, b"g") + header(".x", octal(0)) for i in range(500))
    return {
        "empty.tar": (b"", {"truncated_archive"}),
        "page.tar": (b"<html>404</html>" * 99, {"corrupt_archive"}),
        "zip.tar": (b"PK\3\4" * 400, {"corrupt_archive"}),
        "zeros.tar": (bytes(50_000), set()),
        "header.tar.gz": (
            _gzipped(first, header("x", octal(some), b"x"), bytes(some), end),
            {"archive_too_large"},
        ),
        "long-name.tar.gz": (
            _gzipped(first, header("x", octal(some), b"L"), b"n" * some, end),
            {"archive_too_large"},
        ),
        "names-of-names.tar": (first + header("x", octal(0), b"L") * 5000, {"corrupt_archive"}),
        "sparse-map.tar.gz": (_gzipped(first, sparse_map, end), {"archive_too_large"}),
        "headers-for-all.tar.gz": (_gzipped(first, *for_all, end), set()),
        "image.tar.gz": (
            _gzipped(first, header("1.jpg", octal(huge))) + _gzipped(part) * parts + _gzipped(end),
            {"member_too_large", "archive_too_large"},
        ),
        "ignored.tar.bz2": (
            bz2.compress(first + header("1.cls", octal(huge)))
            + bz2.compress(part, 1) * parts
            + bz2.compress(end),
            {"archive_too_large"},
        ),
        "padding.tar.xz": (
            lzma.compress(first) + lzma.compress(part) * parts,
            {"archive_too_large"},
        ),
        "image.tar": (
            first + header("1.jpg", octal(huge)) + b"short",
            {"member_too_large", "truncated_archive"},
        ),
    }


def _gzipped(*parts: bytes) -> bytes:
    return gzip.compress(b"".join(parts), mtime=0)


def _pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    """A pax header, padded to whole blocks."""
    body = b"".join(_record(f" {key}={value}\n".encode()) for key, value in records.items())
    return header("x", octal(len(body)), kind) + body + bytes(-len(body) % _BLOCK)


def _record(rest: bytes) -> bytes:
    """Begins with its own length, digits included."""
    size = len(rest)
    while size != len(rest) + len(str(size)):
        size = len(rest) + len(str(size))
    return str(size).encode() + rest
