"""Examples of rejected samples: the image, a part of it, or its first bytes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import simplejpeg
from PIL import Image

from kosmos2_core.errors import ImageError
from pipeline.dataset.shards import Shard
from pipeline.errors import PipelineError, WorkerDied
from pipeline.reading.row_images import fetches
from pipeline.reading.sample_reader import SampleReader
from pipeline.report.cards import jpeg_url, thumbnail_size
from pipeline.report.reasons import Reason, Reasons, RejectionExample

_SIDE = 200  # pixels
_FARTHEST = 500  # samples into an archive; it is read from its front to the sample
_FIRST_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedImage:
    """An example of a rejection. `image` is a data URL; if it is None, `note` says why."""

    sample: RejectionExample
    image: str | None
    note: str


def rejected_images(
    reasons: Reasons, shards: Mapping[str, Shard], reader: SampleReader, exif: Any
) -> dict[Reason, list[RejectedImage]]:
    """Return the examples of each reason. No problem here may fail a report."""
    asked = sorted(
        (sample.shard_id, sample.index, reason, sample)
        for reason, samples in reasons.examples.items()
        for sample in samples
    )
    found: dict[Reason, list[RejectedImage]] = {reason: [] for reason in reasons.examples}
    for shard_id, group in groupby(asked, key=lambda item: item[0]):
        pairs = [(reason, sample) for _, _, reason, sample in group]
        of_shard = _of_shard(pairs, shards.get(shard_id), reader, exif)
        for (reason, _), image in zip(pairs, of_shard, strict=True):
            found[reason].append(image)
    return found


def _of_shard(
    pairs: Sequence[tuple[Reason, RejectionExample]],
    shard: Shard | None,
    reader: SampleReader,
    exif: Any,
) -> Iterator[RejectedImage]:
    wanted = [sample for reason, sample in pairs if not _why_not(reason, sample)]
    data = _fetched(wanted, shard, reader)
    for reason, sample in pairs:
        image, note = None, _why_not(reason, sample)
        if not note:
            image, note = _shown(data.get(sample), exif)
        yield RejectedImage(sample=sample, image=image, note=note)


def _why_not(reason: Reason, sample: RejectionExample) -> str:
    """Return why the bytes of a sample must not be opened; "" if they may."""
    if reason.stage == "read":
        return "no image"
    if reason.error_type == WorkerDied.code:
        return "not opened, because it killed a worker or made it hang"
    return "not read, because it is too far into its archive" if sample.index > _FARTHEST else ""


def _fetched(
    samples: Sequence[RejectionExample], shard: Shard | None, reader: SampleReader
) -> dict[RejectionExample, bytes]:
    """Read as many samples as possible, in one pass through the archive."""
    data: dict[RejectionExample, bytes] = {}
    if shard is None or not samples:
        return data
    # The offset of a rejected sample is not stored; its index finds it.
    rows = [{"index": s.index, "uri": s.uri, "image_offset": None} for s in samples]
    try:
        with closing(fetches(rows, shard, reader)) as found:
            for sample, fetch in zip(samples, found, strict=True):
                data[sample] = fetch()
    except PipelineError:
        return data
    return data


def _shown(data: bytes | None, exif: Any) -> tuple[str | None, str]:
    # This import loads torch, which `--help` does not need.
    from kosmos2_core.images.decode import upright_image

    if data is None:
        return None, "can no longer be read"
    try:
        return _small(upright_image(data, exif=exif)), ""
    except ImageError:
        part = _part_of_jpeg(data)
    if part is not None:
        return _small(part), "the part that can be decoded"
    return None, _first_bytes(data)


def _part_of_jpeg(data: bytes) -> Image.Image | None:
    from kosmos2_core.images.decode import MAX_PIXELS

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > MAX_PIXELS or colours in ("CMYK", "YCCK"):
            return None
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=False))
    except (ValueError, KeyError):
        return None


def _small(image: Image.Image) -> str:
    return jpeg_url(image, thumbnail_size(image.width, image.height, _SIDE))


def _first_bytes(data: bytes) -> str:
    """Return the first bytes: an error page in place of an image is the most common reason."""
    if not data:
        return "no bytes"
    head = data[:_FIRST_BYTES]
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    shown = " ".join(head.decode("ascii").split()) if is_text else head[:16].hex(" ")
    return f"{len(data):,} bytes that begin with: {shown}"
