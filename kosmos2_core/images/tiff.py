"""Read the directories of a TIFF without its pixels. EXIF has the same structure."""

import struct
from collections.abc import Iterator, Mapping
from typing import Final

Directory = Mapping[int, tuple[int, ...]]
"""Tag → its values, for the tags named in this module. No tuple is empty."""

ORIENTATION: Final = 274
_SUBFILE_TYPE: Final = 254
_PHOTOMETRIC: Final = 262
_STRIPS: Final = (273, 279)  # tags of the offsets and of the sizes
_TILES: Final = (324, 325)
_TILE_SIZE: Final = (322, 323)
_SUB_DIRECTORIES: Final = 330
_DNG_VERSION: Final = 50706
_SENSOR: Final = {32803, 34892}  # photometric: a colour filter array, linear raw
# By field type (TIFF 6.0, section 2; BigTIFF): struct codes of integers, and bytes per value.
_INTEGERS: Final = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_BYTES: Final = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
_TAGS: Final = {
    *(ORIENTATION, _SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION),
    *(*_STRIPS, *_TILES, *_TILE_SIZE),
}
# Limits above those of valid files. A broken file can claim any number, or form a cycle.
_MOST_VALUES: Final = 1 << 20
_MOST_FIELDS: Final = 65_535
_MOST_DIRECTORIES: Final = 32  # a camera writes up to five


def first_directory(data: bytes) -> Directory:
    """Return the tags of the first image, up to the first broken one."""
    return next(_directories(data), {})


def is_camera_raw(data: bytes) -> bool:
    """Return whether a TIFF is a camera raw file; Pillow would decode its preview instead.

    A DNG has a tag for this. Others (NEF, ARW, PEF, ...) have an image that is a colour filter
    array, or begin with a preview of an image in a subdirectory.
    """
    directories = _directories(data)
    first = next(directories, {})
    is_preview = first.get(_SUBFILE_TYPE, (0,))[0] & 1 == 1 and _SUB_DIRECTORIES in first
    return (
        _DNG_VERSION in first
        or is_preview
        or any(_SENSOR & {*each.get(_PHOTOMETRIC, ())} for each in (first, *directories))
    )


def is_cut(data: bytes) -> bool:
    """Return whether the first image's directory or pixels reach past the end of the file."""
    order = _order(data)
    if order is None:
        return False
    directory, _, reach = _directory(data, _first_offset(data, order), order)
    if reach > len(data):
        return True
    for offsets, sizes in (_STRIPS, _TILES):
        spans = zip(directory.get(offsets, ()), directory.get(sizes, ()), strict=False)
        if any(offset + size > len(data) for offset, size in spans):
            return True
    return False


def tile_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of the first image's tiles, because libtiff decodes whole tiles."""
    directory = first_directory(data)
    width, height = (directory.get(tag, ()) for tag in _TILE_SIZE)
    return (width[0], height[0]) if width and height else None


def _directories(data: bytes) -> Iterator[Directory]:
    """Yield the first directory, its subdirectories, then the following directories."""
    order = _order(data)
    if order is None:
        return
    waiting = [_first_offset(data, order)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at == 0 or at in seen:
            continue
        seen.add(at)
        directory, end, _ = _directory(data, at, order)
        yield directory
        waiting += directory.get(_SUB_DIRECTORIES, ())[:_MOST_DIRECTORIES]
        waiting += _unpacked(data, end, order + ("Q" if _is_big(data) else "L"))


def _order(data: bytes) -> str | None:
    return {b"II": "<", b"MM": ">"}.get(data[:2])


def _is_big(data: bytes) -> bool:
    return b"+" in data[2:4]


def _first_offset(data: bytes, order: str) -> int:
    is_big = _is_big(data)
    return next(iter(_unpacked(data, 8 if is_big else 4, order + ("Q" if is_big else "L"))), 0)


def _directory(data: bytes, at: int, order: str) -> tuple[Directory, int, int]:
    """Return the tags, the position of the next directory's offset, and the least file size."""
    is_big = _is_big(data)
    layout, step, room = (order + "HHQQ", 20, 8) if is_big else (order + "HHLL", 12, 4)
    number = _unpacked(data, at, order + ("Q" if is_big else "H"))
    tags: dict[int, tuple[int, ...]] = {}
    start = at + (8 if is_big else 2)
    end = start + min(number[0], _MOST_FIELDS) * step if number else len(data)
    reach = end + room
    for position in range(start, min(end, len(data) - step + 1), step):
        tag, kind, count, value = struct.unpack_from(layout, data, position)
        size = count * _BYTES.get(kind, 0)
        where = position + step - room if size <= room else value
        reach = max(reach, where + size)
        if tag in _TAGS and tag not in tags and kind in _INTEGERS and 0 < count <= _MOST_VALUES:
            tags[tag] = _unpacked(data, where, f"{order}{count}{_INTEGERS[kind]}")
    return {tag: values for tag, values in tags.items() if values}, end, reach


def _unpacked(data: bytes, at: int, layout: str) -> tuple[int, ...]:
    if at + struct.calcsize(layout) > len(data):
        return ()
    return struct.unpack_from(layout, data, at)
