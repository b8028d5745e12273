"""Unique names of referenced images, which lead to the image."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from pipeline.dataset.shards import Shard
from pipeline.spec.kinds import LISTED_KINDS


def root_of(shards: Iterable[Shard]) -> str:
    """Return the URI of the innermost folder of all inputs, with a slash; "" if there is none."""
    folders = {shard.uri.rpartition("/")[0] for shard in shards}
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    common = takewhile(lambda names: len(set(names)) == 1, levels)
    return "".join(f"{name}/" for name, *_ in common)


def reference(row: Mapping[str, Any], shard: Shard, root: str) -> str:
    """Return the path of the row's image from `root`, or its absolute path or URI.

    In an archive, the member's name follows; in a table, the row's number.
    """
    uri: str = row["uri"]
    name = uri.removeprefix(root).removeprefix("file://")
    if shard.kind in LISTED_KINDS:
        return name
    inside = row["member"] if shard.kind == "webdataset" else None
    if inside is None or inside.startswith("/") or ".." in inside.split("/"):
        inside = str(shard.first + row["index"])
    return f"{name}/{inside}"
