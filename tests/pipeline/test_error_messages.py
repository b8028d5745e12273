"""The message of an error names the object and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import errors
from pipeline.dataset.dataset import known_record
from pipeline.dataset.layout import lease_key
from pipeline.dataset.lease import Lease
from pipeline.driver.tally import Tally
from pipeline.driver.verdict import Verdict
from pipeline.errors import PipelineError
from pipeline.exit_codes import ExitCode
from pipeline.formats.table.parquet import image_table
from pipeline.parquet import read_parquet
from pipeline.storage import InputStore, OutputStore, open_output
from pipeline.storage.failures import our_errors
from pipeline.storage.objects import Location, locate
from pipeline.storage.outputs import settle
from pipeline.storage.sources import check_etag
from pipeline.storage.web import fetch_from_web


def _refuse_access(folder: Path) -> None:
    with our_errors("s3://bucket/a.tar"):
        raise PermissionError("Access Denied")


def _fill_the_disk(folder: Path) -> None:
    with our_errors(f"file://{folder}/a"):
        raise OSError(28, "No space left on device")


def _store(folder: Path) -> OutputStore:
    return open_output(str(folder / "out"))


def _create_twice(folder: Path) -> None:
    for data in (b"1", b"2"):
        _store(folder).create("a", data)


def _replace_a_changed_object(folder: Path) -> None:
    etag = _store(folder).create("a", b"1")
    _store(folder).put("a", b"2")
    _store(folder).replace("a", b"3", etag)


def _read_text_as_parquet(folder: Path) -> None:
    path = folder / "a.parquet"
    path.write_bytes(b"text")
    store = InputStore()
    [source] = store.list(str(path)).objects
    image_table(store.ranged(source), source.uri, None)


def _read_a_large_image(folder: Path) -> None:
    path = folder / "a.jpg"
    path.write_bytes(bytes(2))
    InputStore().read_whole(f"file://{path}", max_bytes=1)


def _hold_a_held_lease(folder: Path) -> None:
    holder, other = (
        Lease(_store(folder), key=lease_key(), renew_s=0.05, takeover_s=30.0) for _ in range(2)
    )
    holder.acquire()
    try:
        other.acquire()
    finally:
        holder.release()


def _fail(folder: Path) -> None:
    Verdict(
        exit_code=ExitCode.SHARDS_FAILED,
        progress=Tally(shards_total=7, shards_done=3).progress(),
        failures=(),
        is_tripped=False,
        is_mostly_rejects=True,
        store_retries=0,
    ).raise_for_failures()


# A call that raises each error, the object that the message names, and the remedy in it.
MESSAGES: dict[str, tuple[type[PipelineError], Callable[[Path], Any], str, str]] = {
    "disk full": (errors.StorageError, _fill_the_disk, "file:///.*/a: No space", "free space"),
    "not written": (
        errors.StorageError,
        lambda folder: settle(_store(folder), "a", b"1", None, None),
        "/out/a: not written",
        "run the same command again",
    ),
    "no access": (
        errors.StorageRefused,
        _refuse_access,
        "s3://bucket/a.tar: access refused",
        "check AWS_ACCESS_KEY_ID",
    ),
    "web": (
        errors.StorageRefused,
        lambda _: fetch_from_web(Location("https", "a.org/b.jpg"), is_allowed=False, max_bytes=1),
        "https://a.org/b.jpg",
        "add the option",
    ),
    "secret": (
        errors.StorageUrlError,
        lambda _: locate("s3://me:hush@bucket/in"),
        "the s3:// URL seems to hold credentials",
        "remove them",
    ),
    "no dataset": (
        errors.ObjectMissing,
        lambda folder: known_record(_store(folder)),
        "/out holds no dataset",
        "check the URL",
    ),
    "no input": (
        errors.InputMissing,
        lambda folder: InputStore().list(f"{folder}/nothing/"),
        "/nothing/: no such file or folder",
        "check the name",
    ),
    "another ETag": (
        errors.InputChanged,
        lambda _: check_etag(Location("s3", "bucket/a.tar"), "1", "2"),
        "s3://bucket/a.tar: changed since it was planned",
        "restore it",
    ),
    "text": (
        errors.InputUnreadable,
        _read_text_as_parquet,
        r"/a\.parquet cannot be read as Parquet",
        "leave it out",
    ),
    "two bytes": (
        errors.InputTooLarge,
        _read_a_large_image,
        r"/a\.jpg has more than 0 MiB",
        "use a smaller file",
    ),
    "no conditional writes": (
        errors.OutputUnsupported,
        lambda _: open_output("ftp://bucket/out"),
        "ftp://",
        "write to a local directory, to s3://",
    ),
    "changed": (
        errors.Conflict,
        _replace_a_changed_object,
        "/out/a: changed",
        "run the same command again",
    ),
    "created": (
        errors.AlreadyExists,
        _create_twice,
        "/out/a: already exists",
        "run the same command again",
    ),
    "half a file": (
        errors.CorruptOutput,
        lambda _: read_parquet("annotations/a.parquet", b"half"),
        "annotations/a.parquet is damaged",
        "run `kosmos2 verify`",
    ),
    "held": (
        errors.LeaseHeld,
        _hold_a_held_lease,
        "/out is in use",
        "`kosmos2 stop file://.*/out`",
    ),
    "rejects": (
        errors.ShardsFailed,
        _fail,
        "3 of 7 shards are committed",
        "check the input and the rejects",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_names_the_object_and_the_remedy(case: str, tmp_path: Path) -> None:
    error, call, named, remedy = MESSAGES[case]
    with pytest.raises(error, match=f"(?s){named}.*{remedy}"):
        call(tmp_path)


def test_each_kind_of_error_has_a_message_to_check() -> None:
    """The messages of these are in the tests of driver, dataset and reading."""
    elsewhere = {errors.LeaseLost, errors.Stalled, errors.DecoderHung, errors.WrongIdentity}
    ours = {error for error in _subclasses(PipelineError) if error.__module__ == errors.__name__}
    leaves = {error for error in ours if not ours & set(error.__subclasses__())}
    assert leaves - elsewhere <= {error for error, *_ in MESSAGES.values()}


def _subclasses(error: type[PipelineError]) -> set[type[PipelineError]]:
    found = set(error.__subclasses__())
    return found.union(*map(_subclasses, found))
