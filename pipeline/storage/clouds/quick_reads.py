"""Reads of S3 objects by obstore, which takes a fraction of the CPU that s3fs takes.

A quick read is one attempt, and explains nothing. When it fails, `pipeline.storage.s3` reads by
s3fs, which finds a bucket's region, slows down, tries again and says what is wrong. botocore gives
the credentials and the endpoint to both, so profiles, SSO and roles mean the same.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.storage.clouds.names import is_spelt
from pipeline.storage.clouds.requests import client_config, range_options, unquoted
from pipeline.storage.clouds.retries import RETRIES
from pipeline.storage.clouds.runtime import enter_runtime
from pipeline.storage.objects import Fetched, StorageOptions, check_size

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.credentials import Credentials
    from botocore.session import Session
    from obstore import Bytes, GetOptions
    from obstore.store import S3Credential, S3Store

REST_S = 30.0  # s3fs reads that long after a failure
# obstore asks again 5 minutes before the end, botocore renews 10 minutes before it.
_CREDENTIALS_LAST = timedelta(minutes=10)
_EXPRESS = "--x-s3"  # ends the names of directory buckets, whose requests are signed otherwise
_SIGNED_FOR = re.compile(r"Credential=[^,]+/\d{8}/([^/,]+)/")


class QuickReads:
    """Reads of one bucket. Each returns None if s3fs has to read."""

    def __init__(self, options: StorageOptions, bucket: str, timeout_s: float) -> None:
        self._options = options
        self._bucket = bucket
        self._timeout_s = timeout_s
        self._store: S3Store | None = None
        self._opening = Lock()
        self._rests_until = 0.0

    def whole(self, key: str, max_bytes: int | None = None) -> Fetched | None:
        """Read a whole object. Raises InputTooLarge before any of its bytes are read."""
        found = self._read(key, {}, max_bytes)
        return found and Fetched(found[0].to_bytes(), found[1])

    def span(self, key: str, offset: int, size_bytes: int, etag: str | None) -> memoryview | None:
        """Read at most `size_bytes`, of the object with that ETag if one is given."""
        found = self._read(key, range_options(offset, size_bytes, etag), None)
        return found and memoryview(found[0])

    def _read(
        self, key: str, sent: "GetOptions", max_bytes: int | None
    ) -> "tuple[Bytes, str] | None":
        if time.monotonic() < self._rests_until or not is_spelt(key) or not enter_runtime():
            return None
        from botocore.exceptions import BotoCoreError
        from obstore.exceptions import BaseError, PreconditionError

        try:
            answer = self._opened().get(key, options=sent)
            check_size(f"s3://{self._bucket}/{key}", answer.meta["size"], max_bytes)
            return answer.bytes(), unquoted(answer.meta["e_tag"])
        except (FileNotFoundError, PreconditionError):
            return None
        except BaseError:
            RETRIES.add()
        except (BotoCoreError, OSError, ValueError):
            pass  # s3fs meets the same, such as no credentials, and says it
        self._rests_until = time.monotonic() + REST_S
        return None

    def _opened(self) -> "S3Store":
        with self._opening:
            if self._store is None:
                self._store = _open(self._options, self._bucket, self._timeout_s)
            return self._store


@lru_cache(maxsize=64)
def quick_reads(
    options: StorageOptions, bucket: str, _process_id: int, timeout_s: float
) -> QuickReads:
    """Return the reads of a bucket, shared by the threads of a process."""
    return QuickReads(options, bucket, timeout_s)


def _open(options: StorageOptions, bucket: str, timeout_s: float) -> "S3Store":
    """Raises BotoCoreError, OSError, ValueError."""
    import botocore.session
    from botocore.exceptions import NoCredentialsError
    from obstore.store import S3Store

    session = botocore.session.Session(profile=options.profile)
    is_anonymous = options.is_on("anonymous")
    found = None if is_anonymous else session.get_credentials()
    if found is None and not is_anonymous:
        raise NoCredentialsError
    endpoint, is_host, region = _endpoint(session, options, bucket)
    client = client_config(timeout_s)
    if bundle := session.get_config_variable("ca_bundle"):
        client["root_certificate"] = Path(bundle).read_bytes()
    return S3Store(
        bucket,
        # What is left out, obstore takes from the environment.
        config={
            "endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "virtual_hosted_style_request": is_host,
            "region": region,
            "skip_signature": is_anonymous,
            "request_payer": options.is_on("requester_pays"),
        },
        client_options=client,
        retry_config={"max_retries": 0},
        credential_provider=found and _provider(found),
    )


def _endpoint(session: "Session", options: StorageOptions, bucket: str) -> tuple[str, bool, str]:
    """Return what botocore would use: the URL, whether it names the bucket, and the region."""
    from botocore import UNSIGNED
    from botocore.awsrequest import AWSResponse
    from botocore.config import Config
    from urllib3 import HTTPResponse

    if bucket.endswith(_EXPRESS):
        raise ValueError("directory buckets have sessions of their own")
    client = session.create_client(
        "s3",
        endpoint_url=options.endpoint_url,
        region_name=options.setting("region"),
        config=Config(signature_version=UNSIGNED) if options.is_on("anonymous") else None,
    )
    prepared: list[AWSPreparedRequest] = []

    def hold(request: "AWSPreparedRequest", **_: Any) -> "AWSResponse":
        """Answer in place of the server."""
        prepared.append(request)
        return AWSResponse(request.url, 200, {}, HTTPResponse(BytesIO(), preload_content=False))

    client.meta.events.register("before-send.s3", hold)
    client.head_object(Bucket=bucket, Key="key")
    [request] = prepared
    url = urlsplit(request.url)
    signed = str(request.headers.get("Authorization", ""))
    found = _SIGNED_FOR.search(signed)
    region = found[1] if found else client.meta.region_name
    if found is None and not options.is_on("anonymous"):
        raise ValueError("signed by other rules than version 4")
    path = url.path.removesuffix("/key")
    is_host = not path.endswith(f"/{bucket}")
    return f"{url.scheme}://{url.netloc}{path.removesuffix(f'/{bucket}')}", is_host, region


def _provider(found: "Credentials") -> "Callable[[], S3Credential]":
    def current() -> "S3Credential":
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LAST,
        }

    return current
