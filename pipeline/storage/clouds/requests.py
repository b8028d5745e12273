"""The parts that all requests by obstore share."""

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig

_CONNECT_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 600.0  # with its body


def client_config(timeout_s: float) -> "ClientConfig":
    """Return the limits of a client: `timeout_s` without an answer, or without its next bytes."""
    return {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, timeout_s)),
        "read_timeout": timedelta(seconds=timeout_s),
        "timeout": timedelta(seconds=_REQUEST_TIMEOUT_S),
    }


def range_options(offset: int, size_bytes: int, etag: str | None) -> "GetOptions":
    """Return the options to read a range, of the object with that ETag if one is given."""
    sent: GetOptions = {"range": (offset, offset + size_bytes)}
    if etag is not None:
        sent["if_match"] = f'"{etag}"'
    return sent


def unquoted(etag: str | None) -> str:
    """Return an ETag as it stands in plans: without quotes, empty if the store gives none."""
    return (etag or "").strip('"')
