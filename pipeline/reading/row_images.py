"""The image of a row of the dataset, read from the job's input."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from kosmos2_core.images.formats import DECODED, HEAD_BYTES, UNDECODED, format_of
from pipeline.dataset.shards import Shard
from pipeline.errors import InputChanged
from pipeline.formats.listed import MAX_LISTED_BYTES
from pipeline.formats.sample import Sample
from pipeline.reading.sample_reader import SampleReader
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import InputStore

if TYPE_CHECKING:
    from kosmos2_core.images.decode import ExifPolicy

Fetch = Callable[[], bytes]

_FAR = 16  # samples; nearer ones are skipped while reading
_JPEG_QUALITY = 95  # for re-encoding once, if a camera stored the image sideways


def encoded_image(row: Mapping[str, Any], shard: Shard, reader: SampleReader) -> bytes:
    """Return the bytes of the row's image. Raises InputChanged, InputMissing, StorageError."""
    [fetch] = fetches([row], shard, reader)
    return fetch()


def fetches(
    rows: Iterable[Mapping[str, Any]], shard: Shard, reader: SampleReader
) -> Generator[Fetch, None, None]:
    """Yield a call for each row of one shard, by ascending index, that returns its encoded image.

    A call is one read, which any thread may do. Compressed archives, Parquet and Arrow have no such
    read: the iterator reads them once, front to back, and skips row groups of Parquet without
    requested rows.
    """
    archive = _Archive(shard, reader)
    with closing(archive):
        for row in rows:
            if shard.kind in LISTED_KINDS:
                yield partial(_own_object, row["uri"], row.get("image_sha256"), reader.store)
            elif row["image_offset"] is not None:
                span = row["image_offset"], row["image_size"]
                yield partial(reader.store.read_range, shard.uri, *span, shard.etag)
            else:
                yield partial(bytes, archive.sample(row["index"]).data)


class _Archive:
    """The samples of a shard, by ascending index."""

    def __init__(self, shard: Shard, reader: SampleReader) -> None:
        self._shard = shard
        self._reader = reader
        self._found = reader.read(shard)
        self._sample: Sample | None = None
        self._index = -1  # of the last sample read

    def close(self) -> None:
        self._found.close()

    def sample(self, index: int) -> Sample:
        """Return a sample. Raises InputChanged if there is none of that index."""
        if self._shard.kind == "parquet" and index - self._index > _FAR:
            self._found.close()
            self._found = self._reader.read(self._shard, start=index)
        while self._index < index:
            each = next(self._found, None)
            if each is None:
                raise InputChanged(
                    f"{self._shard.uri} no longer has sample {index}; restore the input"
                )
            self._index = each.index
            self._sample = each if isinstance(each, Sample) else None
        if self._sample is None or self._index != index:
            raise InputChanged(
                f"{self._shard.uri}: sample {index} can no longer be read; restore the input"
            )
        return self._sample


def _own_object(uri: str, sha256: bytes | None, store: InputStore) -> bytes:
    """Return a listed image. The dataset has no ETag of it, so its hash is checked."""
    data = store.read_whole(uri, max_bytes=MAX_LISTED_BYTES)
    if sha256 is not None and hashlib.sha256(data).digest() != sha256:
        raise InputChanged(f"{uri} is not the image that was annotated; restore it")
    return data


def upright_bytes(data: bytes, *, orientation: int, exif: "ExifPolicy") -> bytes:
    """Return a file of the image as the model saw it, for readers with any EXIF policy.

    `orientation` is the one stored in `data`. If it is 1, the bytes stay as they are. Otherwise the
    image is turned (or not, by `exif`) and encoded again without the tag.
    """
    if orientation == 1:
        return data
    # It loads torch, which references do not need.
    from kosmos2_core.images.decode import upright_image

    image, buffer = upright_image(data, exif=exif), BytesIO()
    if extension_of(data) == "jpg":
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def extension_of(data: bytes) -> str:
    """Return the extension by the first bytes, not by the name: jpg, png, webp, ..."""
    name = format_of(data[:HEAD_BYTES])
    extensions = {**DECODED, **UNDECODED}.get(name or "")
    if extensions is None:
        raise ValueError(f"the image begins with {data[:8]!r}, which no supported format does")
    return extensions[0]
