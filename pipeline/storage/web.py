"""Images from the web. Their URLs are not trusted: none may lead into a private network.

The address is checked when its socket is made. Neither a redirect nor a name that resolves
differently the second time can evade that. Proxies and cookies are not used.
"""

import asyncio
import ipaddress
import socket
from typing import Any

import aiohttp
from fsspec.asyn import get_loop, sync

from pipeline.errors import InputMissing, StorageError, StorageRefused
from pipeline.storage.objects import Location, check_size

MAX_WEB_BYTES = 64 << 20
# For one attempt, with redirects and body. The limits are short enough for a table of images from
# dead hosts to arrive before --stall-timeout.
TIMEOUT_S = 20.0
ATTEMPTS = 2
MAX_REDIRECTS = 5
_PAUSE_S = 1.0
_NO_WEB_ADDRESS = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, aiohttp.TooManyRedirects)
_BUSY = frozenset({408, 425, 429})
_EMBEDDED_IPV4 = ipaddress.ip_network("64:ff9b::/96")  # NAT64
# Decompression could make any size of a few bytes, and images do not compress.
_HEADERS = {"User-Agent": "kosmos2-annotate", "Accept-Encoding": "identity"}


class _Private(OSError):
    """Raised if an address is in a private network."""


def fetch_from_web(at: Location, *, is_allowed: bool, max_bytes: int) -> bytes:
    """Read an image.

    Raises StorageRefused, InputMissing, InputTooLarge; StorageError if it may pass.
    """
    if not is_allowed:
        raise StorageRefused(
            f"{at.uri} is on the web, which is read only with --allow-http; add the option"
        )
    data: bytes = sync(get_loop(), _fetch, at.uri, min(max_bytes, MAX_WEB_BYTES))
    return data


def is_public(address: str) -> bool:
    """Return whether an address is public; "::ffff:127.0.0.1" is 127.0.0.1."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in _EMBEDDED_IPV4:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


async def _fetch(uri: str, max_bytes: int) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await asyncio.wait_for(_attempt(uri, max_bytes), TIMEOUT_S)
        except StorageRefused:
            raise
        except (aiohttp.ClientError, OSError, StorageError) as error:
            if (private := _private_behind(error)) is not None:
                raise StorageRefused(f"{uri}: {private}; remove it from the manifest") from error
            if isinstance(error, _NO_WEB_ADDRESS):
                raise StorageRefused(
                    f"{uri} cannot be fetched ({type(error).__name__}); correct it in the manifest"
                ) from error
            if attempt == ATTEMPTS:
                reason = error if isinstance(error, StorageError) else type(error).__name__
                raise StorageError(
                    f"{uri}: no answer after {ATTEMPTS} attempts: {reason}; retry later"
                ) from error
            await asyncio.sleep(_PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")


async def _attempt(uri: str, max_bytes: int) -> bytes:
    # One client per attempt, so that no connection is reused for another name.
    connector = aiohttp.TCPConnector(socket_factory=_public_socket, limit=1, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
        ) as session,
        session.get(uri, max_redirects=MAX_REDIRECTS) as answer,
    ):
        _check(uri, answer.status)
        data = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 16):
            data += chunk
            check_size(uri, len(data), max_bytes)
        return bytes(data)


def _check(uri: str, status: int) -> None:
    if status in (404, 410):
        raise InputMissing(f"{uri} does not exist (HTTP {status}); correct it in the manifest")
    if status >= 500 or status in _BUSY:
        raise StorageError(f"{uri}: HTTP {status}; retry later")
    if status != 200:
        raise StorageRefused(f"{uri}: HTTP {status}; check the URL and its permissions")


def _public_socket(address: Any) -> socket.socket:
    """Open a socket to the address that a name resolved to."""
    family, kind, protocol, _, (host, *_) = address
    if not is_public(host):
        raise _Private(f"{host} is a private address, which no manifest may use")
    return socket.socket(family=family, type=kind, proto=protocol)


def _private_behind(error: BaseException | None) -> _Private | None:
    """Return the _Private error behind an error.

    aiohttp wraps the errors of sockets, as a group if a name has several addresses.
    """
    seen = [error]
    while seen:
        each = seen.pop()
        if isinstance(each, _Private):
            return each
        if isinstance(each, BaseExceptionGroup):
            seen += each.exceptions
        if each is not None:
            seen += [each.__cause__, each.__context__, getattr(each, "os_error", None)]
    return None
