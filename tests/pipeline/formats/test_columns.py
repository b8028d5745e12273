"""Which column of a table holds the images, whatever Arrow type and file it is in."""

import base64
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from kosmos2_core.images.decode import decode_image
from pipeline.errors import InputUnreadable
from pipeline.formats.sample import BrokenArchive, Sample, Unreadable
from pipeline.formats.table.arrow import check_readable
from pipeline.formats.table.base64_images import decode_base64_image, is_base64_image
from tests.support.forms import Planned, planned
from tests.support.tars import picture

IMAGES = [picture(i) for i in range(5)]
LONGEST = max(map(len, IMAGES))
PADDED = [image.ljust(LONGEST, b"\0") for image in IMAGES]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCTS = [{"bytes": image, "path": "a.jpg"} for image in IMAGES]
BASE64 = [base64.b64encode(image).decode() for image in IMAGES]

Write = Callable[[pa.Table, Path], None]


class Photo(pa.ExtensionType):
    """As a library of somebody's own would register it."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "tests.photo")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: pa.DataType, _data: bytes) -> "Photo":
        return cls()


def _parquet(table: pa.Table, folder: Path) -> None:
    pq.write_table(table, folder / "a.parquet", row_group_size=3)


def _stream(table: pa.Table, folder: Path, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(folder / "a.arrow", table.schema, options=options) as stream:
        stream.write_table(table, max_chunksize=3)


def _file(table: pa.Table, folder: Path, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(folder / "a.arrow", table.schema, options=options) as file:
        file.write_table(table, max_chunksize=3)


FILES: dict[str, Write] = {
    "parquet": _parquet,
    "stream": _stream,
    "file": _file,
    "zstd stream": lambda table, folder: _stream(table, folder, "zstd"),
    "lz4 file": lambda table, folder: _file(table, folder, "lz4"),
}

ARRAYS: dict[str, pa.Array] = {
    "binary": pa.array(IMAGES, pa.binary()),
    "large_binary": pa.array(IMAGES, pa.large_binary()),
    "binary_view": pa.array(IMAGES, pa.binary_view()),
    "dictionary": pa.array(IMAGES).dictionary_encode(),
    "list<uint8>": pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8())),
    "large_list<uint8>": pa.array([list(image) for image in IMAGES], pa.large_list(pa.uint8())),
    "list<int8>": pa.array(
        [np.frombuffer(image, np.int8) for image in IMAGES], pa.list_(pa.int8())
    ),
    "struct": pa.array(STRUCTS, STRUCT),
    "struct and more": pa.array([{**each, "width": 3, "mime": "image/jpeg"} for each in STRUCTS]),
    "struct of large": pa.array(
        STRUCTS, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    ),
    "struct of list": pa.array(
        [{"bytes": list(image), "path": None} for image in IMAGES],
        pa.struct([("bytes", pa.list_(pa.uint8())), ("path", pa.string())]),
    ),
    "extension": pa.ExtensionArray.from_storage(Photo(), pa.array(IMAGES)),
    "base64": pa.array(BASE64),
    "base64 large": pa.array(BASE64, pa.large_string()),
    "base64 view": pa.array(BASE64, pa.string_view()),
    "base64 in bytes": pa.array([text.encode() for text in BASE64]),
    "base64 in a struct": pa.array([{"bytes": text, "path": "a.jpg"} for text in BASE64]),
    "data: URI": pa.array([f"data:image/jpeg;base64,{text}" for text in BASE64]),
    "url-safe base64": pa.array(
        [base64.urlsafe_b64encode(image).decode().rstrip("=") for image in IMAGES]
    ),
    "base64 in lines": pa.array([base64.encodebytes(image).decode() for image in IMAGES]),
}


def read(found: Planned) -> list[Sample | Unreadable]:
    return [each for shard in found.shards for each in found.reader.read(shard)]  # type: ignore[misc]


def data_of(samples: list[Sample | Unreadable]) -> list[bytes]:
    return [each.data for each in samples if isinstance(each, Sample)]


def write(folder: Path, **columns: Any) -> Path:
    _parquet(pa.table(columns), folder)
    return folder


# ---- types


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ARRAYS)
def test_any_type_that_holds_bytes_is_read(tmp_path: Path, kind: str, file: str) -> None:
    table = pa.table({"image": ARRAYS[kind], "n": range(5)})
    FILES[file](table, tmp_path)
    samples = read(planned(tmp_path))
    assert data_of(samples) == IMAGES
    assert [each.metadata for each in samples if isinstance(each, Sample)] == [
        json.dumps({"n": n}) for n in range(5)
    ]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "array",
    [
        pa.array(PADDED, pa.binary(LONGEST)),
        pa.array([list(image) for image in PADDED], pa.list_(pa.uint8(), LONGEST)),
    ],
    ids=["binary", "list<uint8>"],
)
def test_of_a_fixed_size_the_padding_does_no_harm(
    tmp_path: Path, array: pa.Array, file: str
) -> None:
    FILES[file](pa.table({"image": array}), tmp_path)
    samples = read(planned(tmp_path))
    assert data_of(samples) == PADDED
    for image, sample in zip(IMAGES, data_of(samples), strict=True):
        assert (decode_image(sample).pixels == decode_image(image).pixels).all()


SEVERAL = {
    "list<struct>": pa.array([[one, two] for one, two in zip(STRUCTS, STRUCTS[::-1], strict=True)]),
    "list<binary>": pa.array([[a, b] for a, b in zip(IMAGES, IMAGES[::-1], strict=True)]),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_images_in_a_row_one_is_asked_for(tmp_path: Path, kind: str, file: str) -> None:
    FILES[file](pa.table({"images": SEVERAL[kind], "n": range(5)}), tmp_path)
    with pytest.raises(InputUnreadable, match=r"images \(list<.*--image-column.*images\.0"):
        read(planned(tmp_path))
    assert data_of(read(planned(tmp_path, image_column="images.0"))) == IMAGES
    assert data_of(read(planned(tmp_path, image_column="images.1"))) == IMAGES[::-1]
    lost = read(planned(tmp_path, image_column="images.2"))
    assert [getattr(each, "error_type", None) for each in lost] == ["no_image"] * 5


def test_a_field_of_a_struct_can_be_asked_for(tmp_path: Path) -> None:
    rows = [{"jpg": image, "pages": [{"png": image}]} for image in IMAGES]
    write(tmp_path, record=pa.array(rows))
    assert data_of(read(planned(tmp_path, image_column="record.jpg"))) == IMAGES
    assert data_of(read(planned(tmp_path, image_column="record.pages.0.png"))) == IMAGES
    with pytest.raises(InputUnreadable, match=r"no images in the column record\.gif"):
        planned(tmp_path, image_column="record.gif")


def test_flattened_structs_are_columns_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, **{"image.bytes": pa.array(IMAGES), "image.path": ["a.jpg"] * 5})
    samples = read(planned(tmp_path))
    assert data_of(samples) == IMAGES
    assert isinstance(samples[0], Sample)
    assert samples[0].metadata == '{"image.path": "a.jpg"}'
    assert data_of(read(planned(tmp_path, image_column="image.bytes"))) == IMAGES


def test_a_path_without_bytes_is_said(tmp_path: Path) -> None:
    """As `datasets` keeps images that it did not embed."""
    (tmp_path / "b.jpg").write_bytes(IMAGES[1])
    rows = [{"bytes": IMAGES[0], "path": None}, {"bytes": None, "path": "b.jpg"}]
    write(tmp_path, image=pa.array(rows, STRUCT))
    first, second = read(planned(tmp_path / "a.parquet"))
    assert isinstance(first, Sample)
    assert isinstance(second, Unreadable)
    assert second.error_type == "no_image"
    assert "only the path b.jpg" in second.message
    assert "--image-column image.path" in second.message
    named = read(planned(tmp_path / "a.parquet", image_column="image.path"))
    assert [type(each) for each in named] == [Unreadable, Sample]
    assert data_of(named) == [IMAGES[1]]


def test_paths_alone_are_a_manifest(tmp_path: Path) -> None:
    """`datasets` with Image(decode=False) and no file embedded: the bytes have no type at all."""
    (tmp_path / "b.jpg").write_bytes(IMAGES[1])
    write(tmp_path, image=pa.array([{"bytes": None, "path": "b.jpg"}]))
    assert data_of(read(planned(tmp_path / "a.parquet"))) == [IMAGES[1]]


def test_a_value_that_is_no_base64_is_rejected_alone(tmp_path: Path) -> None:
    write(tmp_path, image=[BASE64[0], "no image!", None, BASE64[1]])
    samples = read(planned(tmp_path))
    assert data_of(samples) == IMAGES[:2]
    assert [getattr(each, "error_type", None) for each in samples] == [
        *(None, "corrupt_row", "no_image", None)
    ]


def test_a_list_with_a_null_byte_is_rejected_alone(tmp_path: Path) -> None:
    values = [list(IMAGES[0]), [255, None, 255], list(IMAGES[1])]
    write(tmp_path, image=pa.array(values, pa.list_(pa.uint8())))
    samples = read(planned(tmp_path))
    assert data_of(samples) == IMAGES[:2]
    assert getattr(samples[1], "error_type", None) == "corrupt_row"


def test_metadata_of_any_type_are_kept(tmp_path: Path) -> None:
    own = uuid.UUID(int=5)
    write(
        tmp_path,
        image=pa.array(IMAGES[:1]),
        tokens=pa.array([[1, 2]], pa.list_(pa.uint8())),
        words=pa.array(["a"], pa.string_view()),
        kind=pa.array(["b"]).dictionary_encode(),
        own=pa.array([own.bytes], pa.uuid()),
        __index_level_0__=[7],
    )
    [sample] = read(planned(tmp_path))
    assert isinstance(sample, Sample)
    assert json.loads(sample.metadata or "") == {
        **{"tokens": [1, 2], "words": "a", "kind": "b", "own": str(own), "__index_level_0__": 7}
    }


@pytest.mark.parametrize(
    ("text", "is_image"),
    [
        (BASE64[0], True),
        (f"data:image/png;base64,{BASE64[0]}", True),
        ("data:image/x;charset=utf-8;base64,AAAA", True),
        ("data:text/plain;base64,aGVsbG8gd29ybGQsIGhlbGxvIHdvcmxkLCBoZWxsbw==", False),
        ("images/2024/07/IMG_0001.jpg", False),
        ("/9j/4AAQSkZJRgABAQAAAQABAAD/images/in/a/folder/a.jpg", False),
        ("d41d8cd98f00b204e9800998ecf8427ed41d8cd98f00b204e9800998ecf8427e", False),
        ("", False),
    ],
)
def test_base64_is_told_by_what_it_says(text: str, is_image: bool) -> None:
    assert is_base64_image(text.encode()) == is_image


def test_base64_that_is_cut_is_an_error() -> None:
    assert decode_base64_image(BASE64[0].encode()) == IMAGES[0]
    with pytest.raises(ValueError, match="not base64"):
        decode_base64_image(BASE64[0].encode() + b"*")


# ---- of several columns, one


FEATURES = {"huggingface": '{"info": {"features": {"scan": {"_type": "Image"}}}}'}
NOTHING = pa.nulls(5, pa.binary())
FULL = pa.array(IMAGES)
OTHER_BYTES = pa.array([b"\x93NUMPY" + bytes(100)] * 5)
LATE = pa.array([None, None, None, *IMAGES[:2]])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"image": NOTHING, "jpg": FULL}, "jpg"),
        ({"image": pa.nulls(5, STRUCT), "jpg": FULL}, "jpg"),
        ({"image": pa.array([{"bytes": None, "path": "a"}] * 5, STRUCT), "photo": FULL}, "photo"),
        ({"image": NOTHING, "scan": FULL}, "scan"),
        ({"scan": NOTHING, "image": FULL}, "image"),
        ({"jpg": FULL, "scan": FULL}, "scan"),
        ({"jpg": FULL, "image": FULL}, "image"),
        ({"embedding": OTHER_BYTES, "photo": FULL}, "photo"),
        ({"image": OTHER_BYTES, "photo": FULL}, "image"),
        ({"image": OTHER_BYTES, "png": FULL}, "png"),
        ({"image": pa.array(["a cat"] * 5), "photo": FULL}, "photo"),
        ({"image": pa.array(BASE64), "embedding": OTHER_BYTES}, "image"),
        ({"Image": FULL, "thumb": FULL}, "Image"),
        ({"image": NOTHING, "jpg": LATE}, "jpg"),
        ({"id": pa.array([bytes(16)] * 5, pa.binary(16)), "photo": FULL}, "photo"),
        ({"labels": pa.array([[1]] * 5, pa.list_(pa.uint8())), "photo": FULL}, "photo"),
        ({"image": NOTHING, "jpg": NOTHING}, "image"),
    ],
)
def test_the_column_whose_values_are_there_is_taken(
    tmp_path: Path, columns: dict[str, pa.Array], chosen: str, file: str
) -> None:
    table = pa.table(columns).replace_schema_metadata(FEATURES if "scan" in columns else None)
    FILES[file](table, tmp_path)
    values = columns[chosen]
    asked = read(planned(tmp_path, image_column=chosen)) if chosen != "id" else []
    assert read(found := planned(tmp_path)) == asked
    assert read(found) == asked  # the choice is made anew, and the same
    assert len(data_of(asked)) == len(values) - values.null_count


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "columns",
    [
        {"before": FULL, "after": FULL},
        {"a": OTHER_BYTES, "b": OTHER_BYTES},
        {"labels": pa.array([[1]] * 5, pa.list_(pa.uint8()))},
        {"words": pa.array(["a cat"] * 5)},
    ],
)
def test_where_the_values_do_not_tell_it_is_asked(
    tmp_path: Path, columns: dict[str, pa.Array], file: str
) -> None:
    FILES[file](pa.table(columns), tmp_path)
    with pytest.raises(
        InputUnreadable, match=r"no column could be chosen for images.*--image-column"
    ):
        read(planned(tmp_path))


def test_a_column_of_one_name_is_not_guessed(tmp_path: Path) -> None:
    columns = [pa.array(IMAGES), pa.array(IMAGES)]
    _parquet(pa.Table.from_arrays(columns, ["image", "image"]), tmp_path)
    with pytest.raises(InputUnreadable, match="has two columns named image"):
        planned(tmp_path)


def test_the_choice_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, image=NOTHING, jpg=FULL)
    with caplog.at_level("INFO"):
        planned(tmp_path)
    assert "images are in the column jpg of 1 files" in caplog.text


def test_a_shard_far_from_the_first_row_takes_the_same_column(tmp_path: Path) -> None:
    """One reads its own row groups, but the file's first values tell its column."""
    first, last = [*IMAGES, *[None] * 5], [None] * 5 + IMAGES
    _parquet(pa.table({"jpg": pa.array(first), "image": pa.array(last)}), tmp_path)
    found = planned(tmp_path, samples_per_shard=1)
    samples = [list(found.reader.read(shard)) for shard in found.shards]
    assert [each.index for each in samples[-1]] == [0]
    assert data_of(read(found)) == IMAGES  # of `image`: the group of nulls alone is passed over


# ---- names or images


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"url": pa.array(["https://a.org/a.jpg"]), "hash": pa.array([bytes(16)])}, "manifest"),
        (
            {"url": pa.array(["https://a.org/a.jpg"]), "n": pa.array([[1]], pa.list_(pa.uint8()))},
            "manifest",
        ),
        ({"url": pa.array(["https://a.org/a.jpg"]), "jpg": pa.nulls(1, pa.binary())}, "parquet"),
        ({"url": pa.array(["https://a.org/a.jpg"]), "photo": FULL[:1]}, "parquet"),
        ({"url": pa.array(["https://a.org/a.jpg"]), "image": pa.array(BASE64[:1])}, "parquet"),
        ({"image": pa.array(["a.jpg"])}, "manifest"),
        ({"image": pa.array(["a.jpg"], pa.string_view())}, "manifest"),
        ({"frame": pa.array(["a.jpg"]).dictionary_encode()}, "manifest"),
        ({"photo_data": pa.array(BASE64[:1])}, "parquet"),
    ],
)
def test_a_table_of_names_is_a_manifest(
    tmp_path: Path, columns: dict[str, pa.Array], kind: str
) -> None:
    write(tmp_path, **columns)
    assert {shard.kind for shard in planned(tmp_path).shards} == {kind}


# ---- writers


def test_what_duckdb_writes_is_read(tmp_path: Path) -> None:
    table = pa.table({"image": IMAGES, "n": range(5)})  # noqa: F841
    duckdb.connect().sql(f"COPY (SELECT * FROM \"table\") TO '{tmp_path}/a.parquet'")
    assert data_of(read(planned(tmp_path))) == IMAGES


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"image": IMAGES, "kind": pd.Categorical(list("ababa"))}, index=list("vwxyz")
    )
    frame.to_parquet(tmp_path / "a.parquet")
    samples = read(planned(tmp_path))
    assert data_of(samples) == IMAGES
    assert isinstance(samples[0], Sample)
    assert json.loads(samples[0].metadata or "") == {"kind": "a", "__index_level_0__": "v"}


def test_a_feather_file_is_read_however_it_is_called(tmp_path: Path) -> None:
    feather.write_feather(pa.table({"image": IMAGES}), tmp_path / "a.arrow")  # compressed
    assert data_of(read(planned(tmp_path))) == IMAGES


def test_a_dictionary_of_images_is_read_once(tmp_path: Path) -> None:
    """Of Parquet, each row came with a copy of all images of its row group."""
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, 4] * 40), pa.array(IMAGES))
    pq.write_table(pa.table({"image": array}), tmp_path / "a.parquet")
    assert data_of(read(planned(tmp_path))) == IMAGES * 40


# ---- Arrow files, before anything runs


def as_bytes(table: pa.Table, write: Write, folder: Path) -> bytes:
    write(table, folder)
    return (folder / "a.arrow").read_bytes()


def check(data: bytes) -> None:
    check_readable(io.BytesIO(data), "s3://b/a.arrow", len(data), None)


def test_an_arrow_file_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    table = pa.table({"image": IMAGES})
    for write in (_stream, _file):
        check(as_bytes(table, write, tmp_path))
    with pytest.raises(InputUnreadable, match=r"a\.arrow.*no column could be chosen for images"):
        check(as_bytes(pa.table({"n": [1]}), _file, tmp_path))
    with pytest.raises(InputUnreadable, match=r"a\.arrow.*the first batch cannot be read"):
        check(as_bytes(table, _file, tmp_path)[:800])
    with pytest.raises(
        InputUnreadable, match=r"a\.arrow cannot be read.*Feather file of version 1"
    ):
        check(b"FEA1" + bytes(100))
    with pytest.raises(InputUnreadable, match=r"a\.arrow cannot be read.*name it \.parquet"):
        check(b"PAR1" + bytes(100))
    assert len(planned(tmp_path).shards) == 1


def test_a_compressed_batch_that_expands_to_too_much_is_refused(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([bytes(300 << 20)])})
    with pytest.raises(InputUnreadable, match="expands to more than 64 MiB; write smaller"):
        check(as_bytes(table, lambda *given: _stream(*given, "zstd"), tmp_path))


def test_an_arrow_file_without_its_end_keeps_what_came_before(tmp_path: Path) -> None:
    data = as_bytes(pa.table({"image": IMAGES}), _file, tmp_path)
    at = data.rindex(b"\xff\xff\xff\xff\0\0\0\0")
    (tmp_path / "a.arrow").write_bytes(data[:at])
    found, samples = planned(tmp_path), list[Any]()
    with pytest.raises(BrokenArchive, match="without its end marker"):
        samples.extend(found.reader.read(found.shards[0]))
    assert data_of(samples) == IMAGES
