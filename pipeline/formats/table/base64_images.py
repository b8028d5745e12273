"""Images as base64 text, in either alphabet, with or without a `data:` prefix."""

import base64
import binascii
import re

from kosmos2_core.images.formats import format_of

_HEAD_CHARS = 512  # enough for the head of a data: URI and the first bytes of an image
_LEAST_CHARS = 32  # no image is this short
_DATA_URI = re.compile(rb"\s*data:([^,]*?);base64,", re.I)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n"


def is_base64_image(text: bytes) -> bool:
    """Return whether the text begins like an image in base64."""
    head = text[:_HEAD_CHARS]
    if (uri := _DATA_URI.match(head)) and uri[1].lower().startswith(b"image/"):
        return True
    start = _start(head)
    body = head[start:].translate(_STANDARD, _SPACES)
    if len(body) < _LEAST_CHARS:
        return False
    try:
        first = base64.b64decode(body[: len(body) // 4 * 4], validate=True)
    except binascii.Error:
        return False
    return format_of(first) is not None


def decode_base64_image(text: bytes) -> bytes:
    """Return the bytes of an image. Raises ValueError if the text is not base64."""
    body = text[_start(text[:_HEAD_CHARS]) :].translate(_STANDARD, _SPACES).rstrip(b"=")
    try:
        return base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the text is not base64: {error}") from error


def _start(head: bytes) -> int:
    uri = _DATA_URI.match(head)
    return uri.end() if uri else 0
