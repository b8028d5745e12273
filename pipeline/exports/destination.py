"""The destination of an export.

`_EXPORT.json` is written first, marked as unfinished, and again last, with what was exported. So an
interrupted export never looks like a finished one.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.dataset.layout import EXPORT_KEY, EXPORT_SHARDS_KEY
from pipeline.errors import AlreadyExists, Conflict, LeaseHeld, ObjectMissing, SpecError
from pipeline.storage import OutputStore

_WRITES = 8  # writes at a time: they wait for the store, not for the processor
# Limits on queued writes: one large file and the images beside it.
_MAX_WAITING_BYTES = 64 * 2**20
_MAX_WAITING = 64


class ExportRecord(BaseModel):
    """The content of `_EXPORT.json`. `folders` and `files` name what the export may write."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    export_id: str
    is_complete: bool
    format: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    details: dict[str, Any] = {}


class Destination:
    """Writes the files of an export and marks it as complete.

    One thread uses it, as a context manager; its own pool writes. One process begins and finishes
    an export; others may join it and write too.
    """

    def __init__(self, store: OutputStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_WRITES, thread_name_prefix="export")
        self._waiting: dict[Future[None], int] = {}
        self._record: ExportRecord | None = None
        self._etag = ""
        self.shards_by_file: dict[str, tuple[str, ...]] = {}
        self.files = 0
        self.size_bytes = 0

    @property
    def uri(self) -> str:
        return self._store.uri

    def finished(self) -> ExportRecord | None:
        """Return the record of a finished export that is there. Raises SpecError."""
        earlier, _ = self._earlier()
        return earlier if earlier is not None and earlier.is_complete else None

    def begin(
        self,
        name: str,
        *,
        folders: tuple[str, ...],
        files: tuple[str, ...],
        overwrite: bool,
        kept: str | None = None,
    ) -> str:
        """Begin an export and return its id; delete an earlier export first.

        An unfinished export is restarted, a finished one only with `overwrite`. `kept` is the id of
        a finished export to which files are added. Raises SpecError if the destination holds
        something else, LeaseHeld if the export to keep was replaced.
        """
        record = ExportRecord(
            export_id=uuid4().hex, is_complete=False, format=name, folders=folders, files=files
        )
        earlier, etag = self._earlier()
        if earlier is None:
            self._check_empty(folders)
        elif kept is not None:
            if (earlier.export_id, earlier.is_complete) != (kept, True):
                raise self._taken()
        elif earlier.is_complete and not overwrite:
            raise SpecError(
                f"{self.uri} holds a finished export ({earlier.format}); choose another DEST, or "
                "replace it with --overwrite"
            )
        try:
            self._etag = (
                self._store.create(EXPORT_KEY, _json(record))
                if etag is None
                else self._store.replace(EXPORT_KEY, _json(record), etag)
            )
        except (AlreadyExists, Conflict) as error:
            raise self._taken() from error
        self._record = record
        if earlier is not None and kept is None:
            self._clear(earlier)
        return record.export_id

    def join(self, export_id: str) -> None:
        """Join an export.

        Raises SpecError if there is none, LeaseHeld if another one replaced it.
        """
        there, _ = self._earlier()
        if there is None:
            raise SpecError(
                f"{self.uri} no longer has {EXPORT_KEY}, or is a directory that not every node can "
                "read; choose a DEST that each node reaches, such as s3:// or a shared mount"
            )
        if there.export_id != export_id or there.is_complete:
            raise self._taken()

    def write(self, key: str, data: bytes, shards: Collection[str] = ()) -> None:
        """Queue a write; wait while too much is queued. Raises the error of an earlier write.

        `shards` are the ids of those that a file holds together.
        """
        if shards:
            self.shards_by_file[key] = tuple(shards)
        while self._is_full(len(data)):
            self._settle_one()
        self._waiting[self._pool.submit(self._store.put, key, data)] = len(data)
        self.files += 1
        self.size_bytes += len(data)

    def settle(self) -> None:
        """Wait for all writes. Raises the error of one of them."""
        while self._waiting:
            self._settle_one()

    def check_files(self, count: int) -> None:
        """Raise Conflict unless the folders hold that many files, all written by this export."""
        assert self._record is not None, "begin comes first"
        if (found := sum(len(self._store.list(f)) for f in self._record.folders)) != count:
            raise Conflict(
                f"{self.uri} holds {found} files in {', '.join(self._record.folders)}, but this "
                f"export wrote {count}: another program changed it; run the same command to export "
                "again"
            )

    def finish(self, details: Mapping[str, Any]) -> None:
        """Wait for all writes, then mark it complete.

        Raises LeaseHeld if another export took over.
        """
        assert self._record is not None, "begin comes first"
        self.settle()
        whole = self._record.model_copy(update={"is_complete": True, "details": dict(details)})
        try:
            self._store.replace(EXPORT_KEY, _json(whole), self._etag)
        except Conflict as error:
            raise self._taken() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _is_full(self, size_bytes: int) -> bool:
        if len(self._waiting) >= _MAX_WAITING:
            return True
        waiting = sum(self._waiting.values())
        return waiting > 0 and waiting + size_bytes > _MAX_WAITING_BYTES

    def _settle_one(self) -> None:
        done, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
        for future in done:
            del self._waiting[future]
            future.result()

    def _earlier(self) -> tuple[ExportRecord | None, str | None]:
        try:
            found = self._store.get(EXPORT_KEY)
        except ObjectMissing:
            return None, None
        try:
            return ExportRecord.model_validate_json(found.data), found.etag
        except ValidationError as error:
            raise SpecError(
                f"{self.uri}/{EXPORT_KEY} cannot be read by this version; choose another DEST, or "
                "empty it"
            ) from error

    def _check_empty(self, folders: tuple[str, ...]) -> None:
        for folder in ("", *folders):
            if found := self._store.list(folder):
                raise SpecError(
                    f"{self.uri} is not empty ({found[0]}) and holds no export; choose another "
                    "DEST, or empty it"
                )

    def _clear(self, earlier: ExportRecord) -> None:
        keys = [key for folder in earlier.folders for key in self._store.list(folder)]
        for _ in self._pool.map(self._store.delete, [*keys, *earlier.files, EXPORT_SHARDS_KEY]):
            pass

    def _taken(self) -> LeaseHeld:
        return LeaseHeld(
            f"{self.uri} is in use: another export writes there; wait until it ends, or choose "
            "another DEST"
        )


def _json(record: ExportRecord) -> bytes:
    return record.model_dump_json(indent=2).encode()
