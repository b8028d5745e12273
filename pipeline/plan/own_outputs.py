"""Outputs of this tool that lie under an input: they are no input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline.dataset.layout import ANNOTATIONS, EXPORT_KEY, RECORD_KEY, plan_key
from pipeline.errors import InputMissing, SpecError
from pipeline.storage.ignored import IgnoredCount
from pipeline.storage.inputs import Listing
from pipeline.storage.objects import Location, ObjectInfo, locate


def without_outputs(listing: Listing, output: str) -> Listing:
    """Leave out what lies in `output`, in other datasets of this tool and in their exports.

    An export that is the input itself is read. Raises SpecError where the input is a dataset of
    this tool or lies in `output`, InputMissing where nothing is left.
    """
    root, own = listing.root, _real(locate(output))
    if _real(root).uri.startswith(_folder(own.uri)):
        raise SpecError(
            f"{root.uri}: the input lies in the output {own.uri}: write to another place"
        )
    datasets = _datasets(listing.objects)
    if not listing.is_one and root.uri in datasets:
        raise SpecError(
            f"{root.uri} is a dataset that this tool made, not an input: `kosmos2 filter`, `dedup` "
            "and `export` read it"
        )
    left_out = {
        **dict.fromkeys(datasets, "in other outputs of this tool"),
        **dict.fromkeys(_folders_with(listing.objects, EXPORT_KEY), "in exports of this tool"),
    }
    left_out[_folder(_seen_from(root, own))] = "in the output itself"
    left_out.pop(root.uri, None)
    ignored, objects = IgnoredCount(), list[ObjectInfo]()
    ignored.include(listing.ignored)
    for info in listing.objects:
        reason = next((left_out[f] for f in _folders_of(info.uri) if f in left_out), None)
        if reason is None:
            objects.append(info)
        else:
            ignored.add(reason, info.uri)
    if not objects:
        raise InputMissing(f"{root.uri}: nothing to read but what is in the output {own.uri}")
    return replace(listing, objects=tuple(objects), ignored=ignored.result())


def _datasets(objects: Sequence[ObjectInfo]) -> list[str]:
    """Folders that hold a plan, and a record or annotations. Patterns may have left out either."""
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
    """Two paths of one local folder are one place."""
    if at.scheme != "file":
        return at
    path = os.path.realpath(at.path)
    return at._replace(path=_folder(path) if at.path.endswith("/") else path)


def _seen_from(root: Location, own: Location) -> str:
    """The URI of the output as the listing has it, if it is beneath `root`."""
    return root.uri + own.uri.removeprefix(_real(root).uri)


def _folders_of(uri: str) -> Iterator[str]:
    place = uri.find("://") + 3
    while (place := uri.find("/", place) + 1) > 0:
        yield uri[:place]
