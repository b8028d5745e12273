"""The kind of an input, determined by its files, and the choice of the files to read."""

import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import cast

from kosmos2_core.images.formats import HEAD_BYTES, IMAGE_EXTENSIONS, format_of
from pipeline.errors import InputMissing, InputUnreadable
from pipeline.formats.decompression import COMPRESSIONS
from pipeline.formats.listed import is_there
from pipeline.formats.table.image_names import looks_like_image
from pipeline.formats.table.manifest import FIRST_ROWS, ROW_ERRORS, names_images
from pipeline.formats.table.parquet import is_image_table
from pipeline.formats.table.rows import MANIFEST_EXTENSIONS, PARQUET_EXTENSIONS, open_table, rows_of
from pipeline.formats.tar.archive import ArchiveBytes
from pipeline.formats.tar.members import TAR_ERRORS
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import InputKind
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount, ignored_in_one_line
from pipeline.storage.inputs import Listing
from pipeline.storage.objects import Location

_TARS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"),
    *(".tar.zst", ".tzst"),
)
_ARROW = (".arrow", ".arrows", ".feather", ".ipc")
# Lists of images only if there is nothing else: such files are beside every dataset.
_LISTS = tuple(f"{name}{end}" for name in (".json", ".txt") for end in ("", *COMPRESSIONS))
_TABLES = tuple(name for name in MANIFEST_EXTENSIONS if name not in (*_LISTS, *PARQUET_EXTENSIONS))
_CACHE = "cache-"  # written by `datasets` beside its own files

_NOUNS: Mapping[InputKind, str] = {
    "webdataset": "archives",
    "arrow": "Arrow files",
    "parquet": "Parquet files",
    "files": "images",
    "manifest": "tables",
}
_READ = "tars, Parquet, Arrow, images, or a manifest (.csv, .tsv, .jsonl, .json, .txt, .parquet)"
# tables larger than images by this factor belong to a dataset of links, whose page has the images
_MUCH_LARGER = 10
_GROUPS_LOOKED_AT = 16  # unknown extensions, the most frequent ones
_PARQUETS_LOOKED_AT = 8
_POINTER = b"version https://git-lfs"
_POINTER_BYTES, _POINTERS_LOOKED_AT = 1024, 3  # their largest size; the smallest files
_ARROW_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"  # a file, a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The files to read; `tables` are beside images, `ignored` lists all others."""

    kind: InputKind
    objects: tuple[ObjectInfo, ...]
    tables: tuple[ObjectInfo, ...] = ()
    ignored: tuple[Ignored, ...] = ()


def choose(store: InputStore, spec: JobSpec, listing: Listing, planned: InputKind | None) -> Chosen:
    """Choose a kind, unless one is requested or planned, and its files.

    Of several kinds that hold images, the one with the most bytes is chosen. Raises InputMissing
    and InputUnreadable, naming what there is.
    """
    asked = spec.input_format if spec.input_format != "auto" else planned
    names = _Names.of(listing.objects)
    _check_whole(store, (*names.webdataset, *names.arrow, *names.parquet, *names.files))
    if listing.is_one:
        [info] = listing.objects
        return Chosen(kind=asked or _kind_of_one(store, spec, info), objects=(info,))
    kind = asked or _kind_of_folder(store, spec, listing, names)
    objects = _objects_of(store, kind, names)
    if not objects and asked is not None and spec.include:
        objects = listing.objects  # --include and --input-format name them explicitly
    if not objects:
        raise InputMissing(
            f"{listing.root.uri} has nothing to read as {kind} among {_said(listing)}; check the "
            "name, --input-format and --include"
        )
    tables = tuple[ObjectInfo, ...]()
    if kind == "files":  # metadata beside images are not required
        of_names = (x for x in names.parquet if _kind_if_readable(store, spec, x) == "manifest")
        tables = (*names.tables, *of_names)
    return Chosen(
        kind=kind,
        objects=tuple(sorted(objects, key=lambda info: info.uri)),
        tables=tables,
        ignored=_ignored(listing, names, kind, {info.uri for info in (*objects, *tables)}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Files by the kind that their names suggest. `parquet` may be images or a table."""

    webdataset: tuple[ObjectInfo, ...]
    arrow: tuple[ObjectInfo, ...]
    parquet: tuple[ObjectInfo, ...]
    files: tuple[ObjectInfo, ...]
    tables: tuple[ObjectInfo, ...]
    lists: tuple[ObjectInfo, ...]
    others: tuple[ObjectInfo, ...]

    @classmethod
    def of(cls, objects: Iterable[ObjectInfo]) -> "_Names":
        found: dict[str, list[ObjectInfo]] = {name: [] for name in cls.__slots__}
        for info in objects:
            found[_family(_name(info))].append(info)
        return cls(**{name: tuple(infos) for name, infos in found.items()})


def _name(info: ObjectInfo) -> str:
    return info.uri.rpartition("/")[2].lower()


def _family(name: str) -> str:
    """Return the field of _Names for a file name in lower case."""
    if name.endswith(_TARS):
        return "webdataset"
    if name.endswith(_ARROW):
        return "others" if name.startswith(_CACHE) else "arrow"
    if name.endswith(PARQUET_EXTENSIONS):
        return "parquet"
    if _extension(name) in IMAGE_EXTENSIONS:
        return "files"
    if name.endswith(_TABLES):
        return "tables"
    return "lists" if name.endswith(_LISTS) else "others"


def _extension(name: str) -> str:
    """Return the extension without the dot; "" if there is none."""
    return name.rpartition(".")[2] if "." in name else ""


# A single file


def _kind_of_one(store: InputStore, spec: JobSpec, info: ObjectInfo) -> InputKind:
    family = _family(_name(info))
    if family == "parquet":
        return _kind_of_parquet(store, spec, info)
    if family in ("tables", "lists"):
        return "manifest"
    kind = cast(InputKind, family) if family != "others" else _kind_by_bytes(store, spec, info)
    if kind is None:
        raise InputUnreadable(
            f"{info.uri} has neither the name nor the first bytes of a supported input: {_READ}; "
            "if it is one of them, name the kind with --input-format"
        )
    return kind


def _kind_of_parquet(store: InputStore, spec: JobSpec, source: ObjectInfo) -> InputKind:
    """Return whether a file is a table of images or of their names. Raises InputUnreadable."""
    if is_image_table(store.ranged(source), source.uri, spec.image_column):
        return "parquet"
    at = Location.of(source.uri)
    with open_table(store, source) as file:
        rows = rows_of(source.uri, spec.image_column)(file)
        is_manifest = names_images(rows, at, spec.image_column, partial(is_there, store, at))
    return "manifest" if is_manifest else "parquet"


def _kind_by_bytes(store: InputStore, spec: JobSpec, info: ObjectInfo) -> InputKind | None:
    """Return the kind of a file by its first bytes; None if it is not an input, or is empty."""
    head = _head(store, info)
    if format_of(head) is not None:
        return "files"
    if head.startswith(b"PAR1"):
        return _kind_of_parquet(store, spec, info)
    if head.startswith(_ARROW_MAGIC):
        return "arrow"
    return "webdataset" if _is_tar(store, info) else None


def _head(store: InputStore, info: ObjectInfo) -> bytes:
    return store.read_range(info.uri, 0, min(HEAD_BYTES, info.size_bytes), info.etag)


def _is_tar(store: InputStore, info: ObjectInfo) -> bool:
    """Return whether a file begins with the header of a tar with a valid checksum."""
    with store.open(info) as file:
        try:
            header = ArchiveBytes(file).read(tarfile.BLOCKSIZE)
            tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except TAR_ERRORS:
            return False
    return True


# A folder


def _kind_of_folder(store: InputStore, spec: JobSpec, listing: Listing, names: _Names) -> InputKind:
    with_images: dict[InputKind, Sequence[ObjectInfo]] = {
        "webdataset": names.webdataset,
        "arrow": names.arrow,
        "parquet": (),
        "files": names.files,
    }
    largest = _largest_kind(store, spec, names.parquet)
    if largest == "parquet":
        with_images["parquet"] = names.parquet
    tables = (*names.tables, *(names.parquet if largest == "manifest" else ()))
    if there := [kind for kind, objects in with_images.items() if objects]:
        most = max(there, key=lambda kind: _size(with_images[kind]))  # the first of equal ones
        is_page = most == "files" and _size(tables) > _MUCH_LARGER * _size(names.files)
        return "manifest" if is_page else most
    if tables:
        return "manifest"
    if names.parquet:
        return "parquet"  # none of them can be read, and the error says why
    if (kind := _kind_of_others(store, spec, names.others)) is not None:
        return kind
    if _image_lists(store, names.lists):
        return "manifest"
    raise InputMissing(
        f"{listing.root.uri} has nothing to read among {_said(listing)}: no {_READ}; name the kind "
        "with --input-format and the files with --include"
    )


def _size(objects: Iterable[ObjectInfo]) -> int:
    return sum(info.size_bytes for info in objects)


def _largest_kind(
    store: InputStore, spec: JobSpec, parquet: Sequence[ObjectInfo]
) -> InputKind | None:
    """Return the kind of the largest readable file: images are larger than metadata."""
    largest = sorted(parquet, key=lambda info: -info.size_bytes)[:_PARQUETS_LOOKED_AT]
    kinds = (_kind_if_readable(store, spec, info) for info in largest)
    return next((kind for kind in kinds if kind is not None), None)


def _kind_if_readable(store: InputStore, spec: JobSpec, source: ObjectInfo) -> InputKind | None:
    try:
        return _kind_of_parquet(store, spec, source)
    except InputUnreadable:
        return None


def _kind_of_others(
    store: InputStore, spec: JobSpec, others: Sequence[ObjectInfo]
) -> InputKind | None:
    """Return the kind of most files, by the first bytes of one file of each extension."""
    kinds = Counter[InputKind]()
    for group in _groups(others):
        if (kind := _kind_by_bytes(store, spec, group[0])) is not None:
            kinds[kind] += len(group)
    return kinds.most_common(1)[0][0] if kinds else None


def _groups(others: Iterable[ObjectInfo]) -> list[list[ObjectInfo]]:
    """Group files by extension; return the largest groups, each with its largest file first."""
    groups: dict[str, list[ObjectInfo]] = {}
    for info in others:
        groups.setdefault(_extension(_name(info)), []).append(info)
    most = sorted(groups.values(), key=lambda group: -len(group))[:_GROUPS_LOOKED_AT]
    return [sorted(group, key=lambda info: -info.size_bytes) for group in most]


def _objects_of(store: InputStore, kind: InputKind, names: _Names) -> tuple[ObjectInfo, ...]:
    if kind == "parquet":
        return names.parquet
    if kind == "manifest":
        tables = (*names.tables, *names.parquet)
        return tables or _image_lists(store, names.lists) or names.lists
    found = {"webdataset": names.webdataset, "arrow": names.arrow, "files": names.files}[kind]
    if found and kind != "files":
        return found
    # Images may also have unknown extensions.
    groups = (group for group in _groups(names.others) if _begins_like(store, group[0], kind))
    return (*found, *(info for group in groups for info in group))


def _image_lists(store: InputStore, lists: Sequence[ObjectInfo]) -> tuple[ObjectInfo, ...]:
    """Return the lists that name images: a README.txt is not one of them."""
    return tuple(info for info in lists if _names_any(store, info))


def _names_any(store: InputStore, info: ObjectInfo) -> bool:
    with store.open(info) as file:
        try:
            rows = list(islice(rows_of(info.uri)(file), FIRST_ROWS))
        except (InputUnreadable, *ROW_ERRORS):
            return False
    values = (value for row in rows for value in row.values())
    return any(isinstance(value, str) and looks_like_image(value) for value in values)


def _begins_like(store: InputStore, info: ObjectInfo, kind: InputKind) -> bool:
    if kind == "webdataset":
        return _is_tar(store, info)
    head = _head(store, info)
    return format_of(head) is not None if kind == "files" else head.startswith(_ARROW_MAGIC)


# Ignored files


def _ignored(
    listing: Listing, names: _Names, kind: InputKind, taken: set[str]
) -> tuple[Ignored, ...]:
    count = IgnoredCount(listing.ignored)
    beside = _NOUNS[kind]
    for family, noun in (
        *((names.webdataset, "archives"), (names.arrow, "Arrow files")),
        *((names.parquet, "Parquet files"), (names.files, "images"), (names.tables, "tables")),
    ):
        for info in family:
            if info.uri not in taken:
                count.add(f"{noun} beside {beside}", info.uri)
    for info in (*names.lists, *names.others):
        if info.uri not in taken:
            count.add(f"not {beside} ({_shown_extension(info)})", info.uri)
    return count.result()


def _shown_extension(info: ObjectInfo) -> str:
    extension = _extension(_name(info))
    return f".{extension[:20]}" if extension else "no extension"


def _check_whole(store: InputStore, objects: Sequence[ObjectInfo]) -> None:
    """Raise InputUnreadable for a file that is only a pointer to the real one."""
    small = [info for info in objects if info.size_bytes < _POINTER_BYTES]
    for info in sorted(small, key=lambda info: info.size_bytes)[:_POINTERS_LOOKED_AT]:
        if _head(store, info).startswith(_POINTER):
            raise InputUnreadable(
                f"{info.uri} is a Git LFS pointer, not the file itself; fetch the file with "
                "`git lfs pull`"
            )


def _said(listing: Listing) -> str:
    """Describe the number of files by extension."""
    count = Counter(_shown_extension(info) for info in listing.objects)
    some = ", ".join(f"{number} {name}" for name, number in count.most_common(5))
    ignored = f", ignored: {ignored_in_one_line(listing.ignored)}" if listing.ignored else ""
    return f"{len(listing.objects)} files ({some}{ignored})"
