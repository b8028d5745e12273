"""The stage for other people's Ray Data pipelines, batch by batch. tests/e2e/test_python.py has it
on Ray."""

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from kosmos2_core.errors import EngineFailed
from kosmos2_core.generation import Generation
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.errors import SpecError
from pipeline.execution.annotate.stage import ANSWER, AnnotateImages
from pipeline.schema import ENTITY
from pipeline.spec.tasks import TaskDefinition

# Ray says it to itself, when a process uses Ray Data for the first time.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

SCENES = [make_scene(11, number, objects=(1, 2)) for number in range(6)]
JPEGS = [encode_jpeg(scene, 95) for scene in SCENES]
CAPTIONS = [scene.caption for scene in SCENES]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def stage() -> AnnotateImages:
    return AnnotateImages(device="cpu", generation=Generation(slots=4))


def ragged(arrays: list[np.ndarray]) -> np.ndarray:
    column = np.empty(len(arrays), object)
    column[:] = arrays
    return column


def captions(table: pa.Table, task: str = "brief") -> list[str | None]:
    return [answer["caption"] for answer in table[task].to_pylist()]


def in_words(found: list[str | None]) -> float:
    """The share of captions that say what the scene is."""
    return sum(a == b for a, b in zip(found, CAPTIONS, strict=True)) / len(CAPTIONS)


ARRAYS = [pixels(data) for data in JPEGS]
SQUARE = [np.asarray(Image.fromarray(array).resize((256, 256))) for array in ARRAYS]
BATCHES: dict[str, Any] = {
    "numpy bytes": {"image": ragged(JPEGS), "n": np.arange(6)},
    "numpy arrays": {"image": np.stack(SQUARE), "n": np.arange(6)},
    "ragged arrays": {"image": ragged(ARRAYS), "n": np.arange(6)},
    "pandas": pd.DataFrame({"image": JPEGS, "n": range(6)}),
    "arrow": pa.table({"image": JPEGS, "n": range(6)}),
    "arrow structs": pa.table({"image": [{"bytes": d, "path": "a"} for d in JPEGS], "n": range(6)}),
}


@pytest.mark.parametrize("form", BATCHES)
def test_images_are_annotated_in_whatever_form_they_come(stage: AnnotateImages, form: str) -> None:
    table = stage(BATCHES[form])
    assert table.column_names == ["image", "n", "brief"]
    assert table["n"].to_pylist() == list(range(6))
    assert table.schema.field("brief").type == ANSWER
    assert in_words(captions(table)) >= 5 / 6
    for answer in table["brief"].to_pylist():
        assert (answer["error"], answer["finish_reason"]) == (None, "eos")
        for entity in answer["entities"]:
            assert answer["caption"][entity["start"] : entity["end"]] == entity["phrase"]
            assert all(0 <= box["x1"] < box["x2"] <= 1 for box in entity["boxes"])
            assert all(0 < box["score"] <= 1 for box in entity["boxes"])


def test_decoding_is_that_of_the_option() -> None:
    large = io.BytesIO()
    Image.fromarray(ARRAYS[0]).resize((1800, 1800)).save(large, "JPEG")
    exact, fast = (
        AnnotateImages(device="cpu", decode=mode)({"image": ragged([large.getvalue()])})
        for mode in ("exact", "fast")
    )
    assert exact["brief"][0]["caption"] == fast["brief"][0]["caption"]
    assert exact["brief"] != fast["brief"]  # scores


BAD: dict[str, Any] = {
    "no image": b"no image",
    "nothing": None,
    "empty": b"",
    "floats": np.zeros((4, 4, 3), np.float32),
    "five channels": np.zeros((4, 4, 5), np.uint8),
    "a struct without bytes": {"bytes": None, "path": "/nowhere.jpg"},
}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("no image", "unknown_format"),
        ("nothing", "unknown_format"),
        ("empty", "empty_image"),
    ],
)
def test_a_bad_image_costs_itself_alone(stage: AnnotateImages, name: str, code: str) -> None:
    table = stage(pa.table({"image": [*JPEGS[:2], BAD[name], *JPEGS[2:]]}))
    good, bad = table["brief"].to_pylist(), table["brief"].to_pylist().pop(2)
    del good[2]
    assert bad["error"].startswith(f"{code}: ")
    assert (bad["caption"], bad["entities"]) == (None, None)
    assert [answer["error"] for answer in good] == [None] * 6
    assert in_words([answer["caption"] for answer in good]) >= 5 / 6


@pytest.mark.parametrize("name", ["floats", "five channels"])
def test_an_array_that_is_no_image_says_what_would_be(stage: AnnotateImages, name: str) -> None:
    [answer] = stage({"image": ragged([BAD[name]])})["brief"].to_pylist()
    assert "give uint8 [height, width, channels]" in answer["error"]


def test_a_struct_without_bytes_is_an_error_of_its_row(stage: AnnotateImages) -> None:
    images = [{"bytes": JPEGS[0], "path": "a"}, BAD["a struct without bytes"]]
    first, second = stage(pa.table({"image": images}))["brief"].to_pylist()
    assert (first["error"], second["caption"]) == (None, None)
    assert second["error"].startswith("unknown_format: ")


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1), (40, 30, 4)])
def test_grey_and_transparent_arrays_are_images(
    stage: AnnotateImages, shape: tuple[int, ...]
) -> None:
    [answer] = stage({"image": np.full((1, *shape), 200, np.uint8)})["brief"].to_pylist()
    assert answer["error"] is None


def test_a_batch_of_nothing_but_bad_images_and_an_empty_one(stage: AnnotateImages) -> None:
    table = stage(pa.table({"image": [b"a", b"b"]}))
    assert all(answer["error"] for answer in table["brief"].to_pylist())
    empty = stage(pa.table({"image": pa.array([], pa.binary())}))
    assert (empty.num_rows, empty.schema.field("brief").type) == (0, ANSWER)


def test_several_tasks_and_a_phrase_from_a_column() -> None:
    stage = AnnotateImages(
        tasks=["brief", "ground:phrase=words.0"], device="cpu", generation=Generation(slots=4)
    )
    phrases = [CAPTIONS[n].partition(" of ")[2].partition(" and ")[0].strip(".") for n in range(2)]
    words = [[phrases[0]], [phrases[1]], None]
    table = stage(pa.table({"image": JPEGS[:3], "words": words}))
    assert table.column_names == ["image", "words", "brief", "ground"]
    first, second, missing = table["ground"].to_pylist()
    for answer, phrase in ((first, phrases[0]), (second, phrases[1])):
        [entity] = [e for e in answer["entities"] if e["phrase"].strip() == phrase]
        assert entity["boxes"]
    assert missing["error"].startswith("missing_field: ")
    assert [a["error"] for a in table["brief"].to_pylist()] == [None] * 3


def test_a_task_of_ones_own() -> None:
    own = TaskDefinition(name="mine", prompt="An image of", grounded=True)
    stage = AnnotateImages(
        tasks=["mine"], define=[own], device="cpu", generation=Generation(slots=2)
    )
    assert in_words(captions(stage(pa.table({"image": JPEGS})), "mine")) >= 5 / 6


def test_batches_of_several_threads_share_one_engine(stage: AnnotateImages) -> None:
    tables = [pa.table({"image": JPEGS[n : n + 2]}) for n in (0, 2, 4)]
    with ThreadPoolExecutor(3) as pool:
        found = [caption for table in pool.map(stage, tables) for caption in captions(table)]
    assert in_words(found) >= 5 / 6


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (pa.table({"photo": JPEGS[:1]}), "no column 'image'; .* the columns are: photo"),
        (pa.table({"image": JPEGS[:1], "brief": [1]}), "already has a column 'brief'"),
    ],
)
def test_a_batch_that_cannot_be_annotated_is_refused(
    stage: AnnotateImages, batch: pa.Table, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        stage(batch)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ["sing"]}, "there are: brief"),
        ({"tasks": []}, "at least one"),
        ({"tasks": ["brief", "brief"]}, "each task once"),
        ({"tasks": ["ground:phrase"]}, "FIELD=METADATA_FIELD"),
        ({"model": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_stage_that_cannot_be_made_says_why(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        AnnotateImages(device="cpu", **options)


def test_an_engine_that_breaks_down_raises() -> None:
    stage = AnnotateImages(device="cpu", generation=Generation(slots=2))

    def fails(*_: object) -> None:
        raise EngineFailed("the device is gone")

    stage._annotator.model.answer_pixels = fails
    with pytest.raises(EngineFailed, match="the device is gone"):
        stage(pa.table({"image": JPEGS[:1]}))


def test_it_changes_nothing_of_its_process(stage: AnnotateImages) -> None:
    before = dict(os.environ), sys.getswitchinterval()
    stage(pa.table({"image": JPEGS[:1]}))
    assert (dict(os.environ), sys.getswitchinterval()) == before


def test_its_entities_are_those_of_a_dataset() -> None:
    assert ANSWER.field("entities").type.value_type == ENTITY
