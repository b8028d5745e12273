"""What there is to annotate."""

import io
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputMissing, SpecError
from pipeline.estimate import survey as looking
from pipeline.estimate.survey import Survey, survey
from pipeline.spacing import evenly_spaced
from pipeline.spec.job import JobSpec
from pipeline.storage import inputs
from tests.support.tars import pictures, tar


def surveyed(folder: Path, **options: Any) -> Survey:
    return survey(JobSpec(input=str(folder), output="unused", **options))


def write(folder: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        mode = "w:gz" if name.endswith("gz") else "w"
        (folder / name).write_bytes(tar(pictures(count), mode=mode))


def test_small_inputs_are_counted_exactly(tmp_path: Path) -> None:
    write(tmp_path, {"a.tar": 3, "b.tar": 4, "c.tar.gz": 5})
    found = surveyed(tmp_path)
    assert (found.images.value, found.images.low, found.images.high) == (12, 12, 12)
    assert found.shards_by_format == {"tar": 2, "tar.gz": 1}
    assert found.images_by_format == {"jpeg": 12}
    assert found.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_is_asked_for_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.tar": 3, "b.tar": 4})
    assert surveyed(tmp_path, limit=1).images.value == 3
    assert surveyed(tmp_path, include=("b*",)).images.value == 4
    parts = [surveyed(tmp_path, partition=f"{i}/3") for i in range(3)]
    assert sorted(each.images.value for each in parts) in ([0, 3, 4], [0, 0, 7])


def test_samples_without_a_readable_image_are_told_apart(tmp_path: Path) -> None:
    whole = tar([*pictures(2), ("x.txt", b"words")])
    (tmp_path / "a.tar").write_bytes(whole)
    (tmp_path / "b.tar").write_bytes(whole[:1000])
    assert surveyed(tmp_path).images_by_format == {"unreadable": 2, "jpeg": 2}


def test_large_inputs_are_estimated_from_some_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(inputs, "BLOCK_BYTES", 10_000)
    draw = random.Random(20261127)
    true = 0
    for i in range(20):
        members = [(f"{n:04d}.jpg", bytes(draw.randrange(500, 9000))) for n in range(80 + i)]
        (tmp_path / f"{i:02d}.tar").write_bytes(tar(members))
        true += len(members)
    found = surveyed(tmp_path)
    assert 0 < found.images_looked_at < true / 4
    assert found.images.low < true < found.images.high
    assert found.images.value == pytest.approx(true, rel=0.1)
    assert (found.requests.puts, found.requests.lists) == (40, 4)
    assert found.requests.gets >= found.size_bytes / 100_000


def test_other_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="nothing to read"):
        surveyed(tmp_path)
    (tmp_path / "a.tar").write_bytes(io.BytesIO(bytes(10240)).read())
    assert surveyed(tmp_path).images.value == 0


def test_an_input_without_images_is_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "SHARDS_LOOKED_AT", 2)
    for name in "abc":
        (tmp_path / f"{name}.tar").write_bytes(bytes(10240))
    with pytest.raises(SpecError, match="check INPUT"):
        surveyed(tmp_path)


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (3, [0, 1, 2]), (9, [0, 4, 8])])
def test_shards_are_looked_at_from_the_first_to_the_last(count: int, chosen: list[int]) -> None:
    assert evenly_spaced(list(range(count)), 3) == chosen
