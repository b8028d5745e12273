"""The exclusion of this tool's own outputs from inputs."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline.dataset.layout import ANNOTATIONS, EXPORT_KEY, RECORD_KEY, plan_key
from pipeline.errors import InputMissing, SpecError
from pipeline.storage.ignored import IgnoredCount
from pipeline.storage.inputs import Listing
from pipeline.storage.objects import Location, ObjectInfo, locate


def without_outputs(listing: Listing, output: str) -> Listing:
    """Leave out files of `output`, of other datasets of this tool, and of their exports.

    An export that is the input itself is read. Raises SpecError if the input is a dataset of this
    tool or is inside `output`, InputMissing if nothing is left.
    """
    root, own = listing.root, _real(locate(output))
    if _real(root).uri.startswith(_folder(own.uri)):
        raise SpecError(
            f"{root.uri} is inside the output {own.uri}, so it cannot be the input; choose another "
            "OUTPUT"
        )
    datasets = _datasets(listing.objects)
    if not listing.is_one and root.uri in datasets:
        raise SpecError(
            f"{root.uri} is a dataset of this tool, so it cannot be the input; use `kosmos2 "
            "filter`, `dedup` or `export`, which read it"
        )
    left_out = {
        **dict.fromkeys(datasets, "in other outputs of this tool"),
        **dict.fromkeys(_folders_with(listing.objects, EXPORT_KEY), "in exports of this tool"),
    }
    left_out[_folder(_seen_from(root, own))] = "in the output itself"
    left_out.pop(root.uri, None)
    ignored, objects = IgnoredCount(listing.ignored), list[ObjectInfo]()
    for info in listing.objects:
        reason = next((left_out[f] for f in _folders_of(info.uri) if f in left_out), None)
        if reason is None:
            objects.append(info)
        else:
            ignored.add(reason, info.uri)
    if not objects:
        raise InputMissing(
            f"{root.uri} holds nothing but what is in the output {own.uri}; check INPUT"
        )
    return replace(listing, objects=tuple(objects), ignored=ignored.result())


def _datasets(objects: Sequence[ObjectInfo]) -> list[str]:
    """Return folders with a plan, and a record or annotations: patterns may exclude either."""
    return [
        folder
        for folder in _folders_with(objects, plan_key(0))
        if any(
            info.uri.startswith((f"{folder}{RECORD_KEY}", f"{folder}{ANNOTATIONS}"))
            for info in objects
        )
    ]


def _folders_with(objects: Iterable[ObjectInfo], name: str) -> list[str]:
    ending = f"/{name}"
    return [info.uri.removesuffix(name) for info in objects if info.uri.endswith(ending)]


def _folder(uri: str) -> str:
    return uri.rstrip("/") + "/"


def _real(at: Location) -> Location:
    """Return the real location: two paths of one local folder are one location."""
    if at.scheme != "file":
        return at
    path = os.path.realpath(at.path)
    return at._replace(path=_folder(path) if at.path.endswith("/") else path)


def _seen_from(root: Location, own: Location) -> str:
    """Return the URI of the output as the listing has it, if it is beneath `root`."""
    return root.uri + own.uri.removeprefix(_real(root).uri)


def _folders_of(uri: str) -> Iterator[str]:
    place = uri.find("://") + 3
    while (place := uri.find("/", place) + 1) > 0:
        yield uri[:place]
