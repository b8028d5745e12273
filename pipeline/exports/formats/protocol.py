"""The contract of an export format, which each module in this folder implements."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import pyarrow as pa

from pipeline.dataset.shards import Shard
from pipeline.exports.categories import Categories
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import Destination
from pipeline.exports.example import Example
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.records import ExportContents, RecordSet
from pipeline.exports.parts import Part, PartsWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The values that a format may need. `model` names the model and its weights.

    `section` appears in the names of files with many examples, if there are several sections.
    Consecutive ids begin with `first_id`. If nothing is exported, `empty_split` names the split
    that gets a file without examples. `lengths` are the planned rows of input files, by URI, for
    formats by shard.
    """

    destination: Destination
    options: ExportOptions
    categories: Categories
    model: str
    carried: tuple[pa.Field, ...] = ()  # columns of --carry
    section: int | None = None
    first_id: int = 1
    empty_split: str | None = None
    tasks: tuple[str, ...] = ()
    lengths: Mapping[str, int] = field(default_factory=dict)

    def write_image(self, example: Example, folder: str) -> None:
        """Write the image to a separate file, if images are embedded."""
        if example.image is not None:
            self.destination.write(f"{folder}/{example.image_name}", example.image.data)

    def parts(self, new: Callable[[], Part]) -> PartsWriter:
        return PartsWriter(
            self.destination,
            new,
            max_bytes=self.options.file_size_mb * 10**6,
            max_examples=self.options.images_per_file,
            prefix="" if self.section is None else f"{self.section:03d}-",
            empty_split=self.empty_split,
        )


class Writer(Protocol):
    """A writer, called by one thread with the examples of a section in the order of the plan."""

    def add(self, example: Example) -> None: ...

    def close(self) -> None:
        """Write what is still open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedShard:
    """A shard whose examples have been added. `rejects` has index, task, key, uri, error_type."""

    shard: Shard
    samples: int
    rejects: pa.Table


@runtime_checkable
class ShardWriter(Writer, Protocol):
    """A writer that is told where a shard ends."""

    def end_shard(self, shard: FinishedShard) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """An export format.

    `folders` (which may contain `{split}`) hold all that `open`'s writer writes. `common` makes
    `files` at the end, from all classes by their ids from 1 on and from the coverage. `embeds` is
    the meaning of `--images auto`. `records` describes the files for `croissant.json`. `about` is
    for the README of the export: what the format is, what it leaves out, and how to load it.
    """

    title: str
    open: Callable[[Setting], Writer]
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()
    common: Callable[[Sequence[str], Coverage], Mapping[str, bytes]] = lambda *_: {}
    records: Callable[[ExportContents], Sequence[RecordSet]]
    embeds: bool = False
    can_embed: bool = True
    has_classes: bool = False
    is_by_image: bool = False  # one entry per image, so one task
    is_by_shard: bool = False  # files follow those of the input; `open` gives a ShardWriter
    can_be_parallel: bool = True
    about: str

    def folders_of(self, splits: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.format(split=s) for f in self.folders for s in splits))


@dataclass(frozen=True, slots=True)
class ImagesBeside:
    """A writer that also writes each embedded image as a file in `folder`."""

    setting: Setting
    writer: Writer
    folder: str = "images"

    def add(self, example: Example) -> None:
        self.setting.write_image(example, self.folder)
        self.writer.add(example)

    def close(self) -> None:
        self.writer.close()
