"""Decoding in a process that a picture may kill."""

from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from kosmos2_core.errors import UnknownFormat
from kosmos2_core.images.decode import decode_image
from pipeline.dataset.shards import Shard, shard_of
from pipeline.errors import DecoderHung, WorkerDied
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT
from pipeline.execution.read_task import READER_ATTEMPTS, tables_of_attempt
from pipeline.faults import VARIABLE, arm
from pipeline.formats.sample import Sample
from pipeline.reading import decoding
from pipeline.reading.decoding import DECODER_MEMORY_BYTES, ChildDecoder
from pipeline.reading.shard_reader import ShardReader
from pipeline.storage import InputStore
from tests.support.tars import Member, picture, pictures, tar

TASKS = ("brief", "detailed")


def sample(key: str, data: bytes) -> Sample:
    return Sample(index=0, key=key, member=None, image_offset=None, data=data, metadata=None)


def test_a_picture_that_hangs_its_decoder_costs_itself_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "decoder.decode[key=slow]=pause")
    expected = decode_image(picture(1)).pixels
    with ChildDecoder("apply", "exact") as decoder:
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "DECODE_LIMIT_S", 3.0)
            with pytest.raises(WorkerDied, match="no answer within 3 s"):
                decoder.decode(sample("slow", picture()))
        assert _children() == []
        assert np.array_equal(decoder.decode(sample("next", picture(1))).pixels, expected)
        [child] = _children()
        assert child.rlimit(psutil.RLIMIT_DATA)[0] == DECODER_MEMORY_BYTES
        with pytest.raises(UnknownFormat, match="text, not an image"):
            decoder.decode(sample("text", b"no picture"))
        assert np.array_equal(decoder.decode(sample("last", picture(1))).pixels, expected)
        assert _children() == [child]  # it is started anew after a death only
    assert _children() == []  # and ends with the decoder


def test_a_reader_whose_decoder_hangs_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    arm(f"decoder.decode[key=0001]=pause@{here}")
    monkeypatch.setattr(decoding, "DECODE_LIMIT_S", 1.0)
    (tmp_path / "in").mkdir()
    reader, shard = reader_of(tmp_path / "in", pictures(20))
    with pytest.raises(DecoderHung, match="within 1 s; the shard is retried"):
        list(reader.read(shard))
    assert here.exists()
    here.write_text("go on")  # or this process would never end
    arm("")


def _children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "spawn_main" in " ".join(child.cmdline()) and child.is_running()
    ]


def reader_of(folder: Path, members: list[Member]) -> tuple[ShardReader, Shard]:
    (folder / "a.tar").write_bytes(tar(members))
    [source] = InputStore().list(str(folder)).objects
    return ShardReader(store=InputStore(), tasks=TASKS, exif="apply"), shard_of(source)


def attempt_to_read(reader: ShardReader, shard: Shard, attempt: int) -> list[pa.Table]:
    return list(tables_of_attempt(reader, shard, attempt=attempt))


def test_an_isolated_shard_gives_the_same_tables_but_for_a_picture_that_kills_its_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "decoder.decode[key=killer]=kill")
    members = [*pictures(70), ("text.jpg", b"no picture")]
    members.insert(66, ("killer.jpg", picture()))
    reader, shard = reader_of(tmp_path, members)
    fast = list(reader.read(shard))
    isolated = attempt_to_read(reader, shard, ISOLATED_ATTEMPT)
    assert isolated[0].equals(fast[0])
    rejected = isolated[1]["rejected"].drop_null().to_pylist()
    assert [(r["index"], r["task"], r["stage"], r["error_type"]) for r in rejected] == [
        *((66, task, "decode", "worker_died") for task in TASKS),
        *((71, task, "decode", "unknown_format") for task in TASKS),
    ]
    assert "the decoder died (SIGKILL)" in rejected[0]["message"]
    assert {row["index"] for row in isolated[1]["sample"].drop_null().to_pylist()} == {
        *(64, 65, 67, 68, 69, 70)
    }


@pytest.mark.parametrize("attempt", [0, ISOLATED_ATTEMPT - 1])
def test_a_first_death_changes_nothing(tmp_path: Path, attempt: int) -> None:
    reader, shard = reader_of(tmp_path, pictures(2))
    [table] = attempt_to_read(reader, shard, attempt)
    assert table.equals(next(reader.read(shard)))
    assert _children() == []


def test_a_shard_that_kills_its_reader_again_and_again_is_given_up(tmp_path: Path) -> None:
    [table] = attempt_to_read(*reader_of(tmp_path, pictures(2)), READER_ATTEMPTS)
    [end] = table["end"].to_pylist()
    assert (end["samples"], end["error_type"], end["retriable"]) == (0, "worker_died", False)
    assert "6 times" in end["message"]
