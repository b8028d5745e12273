"""Pixels of several requests become one array, without a copy where they are neighbours."""

import gc
import warnings

import numpy as np
import pytest
import torch

from kosmos2_core.engine.image_encoder import as_one_array
from tests.support.engine_models import answers, engine_of, pixels, prompt_of, requests_of, shapes


def read_only(count):
    images = np.frombuffer(pixels(count).tobytes(), np.uint8)
    return images.reshape(-1, 3, 224, 224)


@pytest.mark.parametrize("part", [slice(0, 4), slice(1, 3), slice(2, 3)])
def test_neighbours_are_not_copied(part):
    images = read_only(4)
    found = as_one_array(list(images[part]))
    assert np.shares_memory(found, images)
    assert np.array_equal(found, images[part])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.from_numpy(found)


def test_their_memory_lives_as_long_as_the_array():
    found = as_one_array(list(read_only(4)))
    gc.collect()
    assert np.array_equal(found, pixels(4))


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(lambda: read_only(4)[::-1], id="reversed"),
        pytest.param(lambda: read_only(4)[::2], id="with gaps"),
        pytest.param(lambda: read_only(1).repeat(2, axis=0)[[0, 0]][:, :, ::-1], id="strided"),
        pytest.param(lambda: [read_only(1)[0], read_only(1)[0]], id="of two arrays"),
    ],
)
def test_others_are_no_neighbours(images):
    assert as_one_array(list(images())) is None


def test_answers_are_those_of_gathered_images():
    neighbours = requests_of(read_only(5), prompt_of(shapes))
    apart = requests_of(np.repeat(read_only(5), 2, axis=0)[::2], prompt_of(shapes))
    assert as_one_array([request.pixels for request in apart]) is None
    found, expected = (answers(engine_of(shapes(), slots=4), each) for each in (neighbours, apart))
    assert {key: repr(c) for key, c in found.items()} == {
        key: repr(c) for key, c in expected.items()
    }
