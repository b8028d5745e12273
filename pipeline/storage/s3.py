"""The S3 requests of the pipeline.

Objects are read by obstore (`clouds.quick_reads`), and by s3fs if that fails. All else uses s3fs
for its client and its event loop, but not its files, which check the ETag at opening instead of the
planned one, nor its listings, which it caches. No request is a multipart upload, which would drop
the condition, except that of a file without one.

The client's libraries are imported when the first client is made: most processes need none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import (
    Conflict,
    InputChanged,
    StorageRefused,
    StorageUrlError,
)
from pipeline.storage.clouds.quick_reads import QuickReads, quick_reads
from pipeline.storage.clouds.requests import unquoted
from pipeline.storage.clouds.retries import RETRIES
from pipeline.storage.failures import our_errors
from pipeline.storage.objects import (
    ANONYMOUS,
    Data,
    Fetched,
    Location,
    ObjectInfo,
    StorageOptions,
    check_size,
)

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from s3fs import S3FileSystem

# per request, with growing pauses; the adaptive mode slows down when the store demands it
REQUEST_ATTEMPTS = 8
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30
REACH_ATTEMPTS = 3  # a wrong endpoint must be reported within seconds
REACH_TIMEOUT_S = 5
BODY_ATTEMPTS = 3  # botocore does not retry once the body has begun
MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class S3:
    """A BucketClient of S3. The threads of a process share one client per options."""

    options: StorageOptions

    def reach(self, at: Location) -> None:
        from botocore.exceptions import BotoCoreError
        from botocore.exceptions import ConnectionError as BotoConnectionError

        with our_errors(at.uri):
            fs = _file_system(self.options, os.getpid(), REACH_ATTEMPTS, REACH_TIMEOUT_S)
            try:
                fs.call_s3("head_bucket", Bucket=at.bucket)
            except BotoConnectionError:
                raise
            except (BotoCoreError, OSError):
                return

    def clock(self, at: Location) -> datetime | None:
        """Return the time that the store tells with an answer, or a refusal, in whole seconds.

        None if it does not answer or tell.
        """
        from botocore.exceptions import BotoCoreError

        try:
            fs = _file_system(self.options, os.getpid(), REACH_ATTEMPTS, REACH_TIMEOUT_S)
            answer = fs.call_s3("head_bucket", Bucket=at.bucket)
        except (BotoCoreError, OSError) as error:
            answer = getattr(error.__cause__, "response", {})
        told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return parsedate_to_datetime(told) if told else None

    def head(self, at: Location) -> ObjectInfo:
        with our_errors(at.uri):
            answer = self._call("head_object", Bucket=at.bucket, Key=at.key)
        return _info(at.uri, answer["ContentLength"], answer["ETag"])

    def get(self, at: Location, *, max_bytes: int | None = None) -> Fetched:
        if (fetched := self._quick(at).whole(at.key, max_bytes)) is not None:
            return fetched
        with our_errors(at.uri):
            return self._get(at, max_bytes)

    def get_range(
        self, at: Location, offset: int, size_bytes: int, *, etag: str | None = None
    ) -> Data:
        if (data := self._quick(at).span(at.key, offset, size_bytes, etag)) is not None:
            return data
        span = f"bytes={offset}-{offset + size_bytes - 1}"
        with our_errors(at.uri, condition=InputChanged):
            return self._get(at, None, Range=span, **_if_match(etag)).data

    def put(self, at: Location, data: bytes) -> str:
        return self._put(at, data)

    def create(self, at: Location, data: bytes) -> str:
        return self._put(at, data, IfNoneMatch="*")

    def replace(self, at: Location, data: bytes, etag: str) -> str:
        return self._put(at, data, **_if_match(etag))

    def put_file(self, path: Path, to: Location) -> None:
        with our_errors(to.uri):
            self._patient().put_file(str(path), f"{to.bucket}/{to.key}")

    def delete(self, at: Location, etag: str | None = None) -> None:
        with our_errors(at.uri, condition=Conflict):
            self._call("delete_object", Bucket=at.bucket, Key=at.key, **_if_match(etag))

    def list(self, under: Location, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        for found in self._listed(under, delimiter):
            uri = f"s3://{under.bucket}/{found['Key']}"
            yield _info(uri, found["Size"], found["ETag"])

    def times(self, under: Location, *, delimiter: str = "") -> Iterator[tuple[str, datetime]]:
        for found in self._listed(under, delimiter):
            yield f"s3://{under.bucket}/{found['Key']}", found["LastModified"]

    def _listed(self, under: Location, delimiter: str) -> Iterator[dict[str, Any]]:
        sent = {"Bucket": under.bucket, "Prefix": under.key, "Delimiter": delimiter}
        while True:
            with our_errors(under.uri):
                page = self._call("list_objects_v2", **sent)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            sent["ContinuationToken"] = page["NextContinuationToken"]

    def _put(self, at: Location, data: bytes, **condition: str) -> str:
        with our_errors(at.uri, condition=Conflict):
            sent = {"Bucket": at.bucket, "Key": at.key, "Body": data, **condition}
            return unquoted(self._call("put_object", **sent)["ETag"])

    def _call(self, method: str, **sent: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._patient().call_s3(method, **sent)
        return answer

    def _get(self, at: Location, max_bytes: int | None, **sent: str) -> Fetched:
        from fsspec.asyn import sync

        fs, sent = self._patient(), {"Bucket": at.bucket, "Key": at.key, **sent}
        fetched: Fetched = sync(fs.loop, _get_object, fs, at.uri, max_bytes, **sent)
        return fetched

    def _quick(self, at: Location) -> QuickReads:
        return quick_reads(self.options, at.bucket, os.getpid(), READ_TIMEOUT_S)

    def _patient(self) -> "S3FileSystem":
        return _file_system(self.options, os.getpid(), REQUEST_ATTEMPTS, READ_TIMEOUT_S)


async def _get_object(fs: "S3FileSystem", uri: str, max_bytes: int | None, **sent: str) -> Fetched:
    import aiohttp
    from botocore.exceptions import BotoCoreError

    attempt = 1
    while True:
        answer = await fs._call_s3("get_object", **sent)
        try:
            async with answer["Body"] as body:
                check_size(uri, answer["ContentLength"], max_bytes)
                return Fetched(await body.read(), unquoted(answer["ETag"]))
        except (aiohttp.ClientError, BotoCoreError, OSError):
            if attempt == BODY_ATTEMPTS:
                raise
            attempt += 1
            RETRIES.add()


def s3_credentials(options: StorageOptions) -> str:
    """Return where the credentials come from, as botocore names it.

    Raises StorageRefused if there are none.
    """
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    if options.is_on("anonymous"):
        return ANONYMOUS
    try:
        session = Session(profile=options.profile)
        found = session.get_credentials()
    except BotoCoreError as error:
        raise StorageRefused(f"{error}: correct the profile") from error
    if found is None:
        raise StorageRefused(
            "there are no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine a role"
        )
    profile = f" of profile {session.profile}" if session.profile else ""
    return f"{found.method}{profile}"


@lru_cache(maxsize=8)
def _file_system(
    options: StorageOptions, _process_id: int, attempts: int, timeout_s: float
) -> "S3FileSystem":
    """Return a client. Its cache key has the process: a forked child needs its own event loop."""
    from aiobotocore.session import AioSession
    from s3fs import S3FileSystem

    session = AioSession(profile=options.profile)
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_parse_timestamp)
    fs = S3FileSystem(
        anon=options.is_on("anonymous"),
        endpoint_url=options.endpoint_url,
        client_kwargs={"region_name": options.setting("region")},
        s3_additional_kwargs=_of_each_request(options),
        session=session,
        skip_instance_cache=True,
        config_kwargs={
            "retries": {"mode": "adaptive", "total_max_attempts": attempts},
            "connect_timeout": min(CONNECT_TIMEOUT_S, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": MAX_CONNECTIONS,
        },
    )
    try:
        fs.connect()
    except ValueError as error:
        raise StorageUrlError(
            "the endpoint URL (AWS_ENDPOINT_URL or the profile's) is not valid; it must start with "
            "http:// or https://"
        ) from error
    fs.s3.meta.events.register("request-created.s3", _count_if_again)
    fs.retries = 1  # botocore already retries; the product of both would take an hour to give up
    return fs


def _of_each_request(options: StorageOptions) -> dict[str, str]:
    """Return parameters that s3fs adds to the requests that know them."""
    named = {
        "RequestPayer": "requester" if options.is_on("requester_pays") else None,
        "ServerSideEncryption": options.setting("sse"),
        "SSEKMSKeyId": options.setting("sse_kms_key"),
    }
    return {name: value for name, value in named.items() if value is not None}


def _count_if_again(request: "AWSRequest", **_: Any) -> None:
    """Count a retry; botocore makes a new request for each attempt."""
    if request.context["retries"]["attempt"] > 1:
        RETRIES.add()


def _parse_timestamp(value: Any) -> datetime:
    """Parse a time faster than botocore, whose parser takes half the time of a long listing."""
    if isinstance(value, str) and "T" in value and value.endswith("Z"):
        return datetime.fromisoformat(value)
    from botocore.utils import parse_timestamp

    parsed: datetime = parse_timestamp(value)
    return parsed


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"IfMatch": f'"{etag}"'}


def _info(uri: str, size_bytes: int, etag: str) -> ObjectInfo:
    return ObjectInfo(uri=uri, size_bytes=size_bytes, etag=unquoted(etag))
