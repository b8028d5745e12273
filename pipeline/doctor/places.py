"""Input and output: credentials, reading, writing, and the store's clock."""

import time
from datetime import UTC, datetime

from pipeline.dataset.dataset import check_annotatable, read_record
from pipeline.doctor.setup import JobSetup
from pipeline.errors import SpecError
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.storage.clouds.choosing import credentials_source
from pipeline.storage.objects import Location, locate
from pipeline.storage.s3 import S3

_MOST_SKEW_S = 60.0  # S3 refuses requests from 15 minutes on


def credentials(setup: JobSetup) -> str | None:
    """Return where the credentials of both places come from, never the credentials themselves.

    Raises StorageRefused if S3 finds none. Other clouds say so when something is read.
    """
    sources = {
        what: credentials_source(at, options) for what, (at, options) in _places(setup).items()
    }
    return ", ".join(f"{what}: {source}" for what, source in sources.items() if source) or None


def readable_input(setup: JobSetup) -> str | None:
    """List the input and read one byte from the middle of an object. Raises PipelineError."""
    if not setup.has_input:
        return None
    spec, store = setup.spec, InputStore(setup.spec.input_storage)
    store.reach(spec.input)
    listing = store.list(spec.input, spec.include, spec.exclude)
    size_bytes = sum(each.size_bytes for each in listing.objects)
    first = max(listing.objects[:100], key=lambda each: each.size_bytes)
    store.read_range(first.uri, first.size_bytes // 2, min(first.size_bytes, 1), first.etag)
    return f"{listing.root.uri}: {len(listing.objects)} objects, {size_bytes / 1e6:.1f} MB"


def writable_output(setup: JobSetup) -> str | None:
    """Try conditional writes, and whether a run may write there. Raises PipelineError."""
    if not setup.has_output:
        return None
    store = open_output(setup.spec.output, setup.spec.output_storage)
    InputStore(setup.spec.output_storage).reach(setup.spec.output)
    record = read_record(store)
    check_annotatable(store, record)
    store.probe()
    there = "a new dataset" if record is None else "a dataset, which a run would resume"
    return f"{store.uri}: conditional writes work; {there}"


def clock(setup: JobSetup) -> str | None:
    """Compare this machine's clock with that of an S3 store. Raises SpecError."""
    found = []
    for at, options in _places(setup).values():
        before = time.time()
        told = S3(options).clock(at) if at.scheme == "s3" else None
        if told is None:  # its own part says if the store does not answer
            continue
        there = told.timestamp()
        skew = max(before - there - 1, there - time.time(), 0)  # it tells whole seconds
        if skew > _MOST_SKEW_S:
            now = datetime.now(UTC).strftime("%H:%M:%S")
            raise SpecError(
                f"this machine's clock says {now} UTC, {skew:.0f} s away from that of {at.uri}: "
                "set it, as by NTP; S3 refuses requests from 15 minutes on"
            )
        found.append(f"as that of {at.uri}")
    return ", ".join(found) or None


def _places(setup: JobSetup) -> dict[str, tuple[Location, StorageOptions]]:
    spec, places = setup.spec, dict[str, tuple[Location, StorageOptions]]()
    if setup.has_input:
        places["input"] = locate(spec.input), spec.input_storage
    if setup.has_output:
        places["output"] = locate(spec.output), spec.output_storage
    return places
