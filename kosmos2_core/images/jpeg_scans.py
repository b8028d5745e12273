"""Check whether a JPEG has its end marker and all its scans (ITU-T T.81)."""

import re
from collections.abc import Iterator
from typing import Final

END_OF_IMAGE: Final = b"\xff\xd9"
_SCAN: Final = 0xDA
_FRAMES: Final = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; arithmetic coded
_BARE: Final = (0x01, *range(0xD0, 0xD9))  # markers without a segment
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")  # also matches a restart within a scan


def has_end(data: bytes) -> bool:
    """Return whether the end marker follows the last scan."""
    return data.rfind(END_OF_IMAGE) > data.rfind(bytes([0xFF, _SCAN]))


def has_all_scans(data: bytes) -> bool:
    """Return whether the scans give each coefficient of each component down to its last bit.

    A progressive JPEG that ends between two scans decodes without a warning, but blurred. Whether
    the last scan is complete is left to the decoder.
    """
    components: set[int] = set()
    done: set[tuple[int, int]] = set()
    for marker, segment in _segments(data):
        if marker in _FRAMES:
            components = {*segment[6::3]}
        elif marker == _SCAN and len(segment) >= 4 and len(segment) == 4 + 2 * segment[0]:
            first, last, bits = segment[-3:]
            scanned = {(each, at) for each in segment[1:-3:2] for at in range(first, last + 1)}
            # The low half of `bits` is the number of bits that later scans give.
            done = done - scanned if bits & 15 else done | scanned
    return bool(components) and done >= {(each, at) for each in components for at in range(64)}


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers and the contents of their segments, up to the end of the data."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker not in _BARE:
            size = int.from_bytes(data[at : at + 2], "big")
            yield marker, data[at + 2 : at + size]
            at += size
