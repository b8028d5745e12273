"""Our modules and settings against Hugging Face's own, which are not imported to annotate."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, Kosmos2ForConditionalGeneration

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, CheckpointFiles, locate_checkpoint
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.checkpoint.modules import model_modules
from kosmos2_core.checkpoint.processor import image_settings
from kosmos2_core.comparison.random_model import FULL_SIZE, Proportions
from kosmos2_core.comparison.reference import with_reference_model
from kosmos2_core.errors import CheckpointError
from kosmos2_core.images.decode import square_pixels
from tests.support.core_alone import run_with_core_alone


@pytest.mark.parametrize("proportions", [Proportions(patch=28), FULL_SIZE], ids=["small", "full"])
def test_weights_have_the_names_and_shapes_of_hugging_face(proportions):
    config = proportions.config()
    with torch.device("meta"):
        theirs = Kosmos2ForConditionalGeneration(config)

    def shapes(model):
        return {name: weight.shape for name, weight in model.state_dict().items()}

    assert shapes(model_modules(config)) == shapes(theirs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_is_loaded_as_hugging_face_loads_it(dtype):
    ours = load_checkpoint("shapes", device="cpu", dtype=dtype)
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(SHAPES_DIRECTORY, dtype=ours.dtype)
    weights, expected = ours.model.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    text, their_text = ours.model.text_model.model, theirs.text_model.model
    assert torch.equal(text.embed_positions.weights, their_text.embed_positions.weights)
    assert text.embed_positions.weights.dtype == ours.dtype
    assert text.embed_scale == their_text.embed_scale
    assert len(list(ours.model.parameters())) == len(list(theirs.parameters()))  # one is shared


def test_the_reference_shares_the_weights():
    ours = load_checkpoint("shapes", device="cpu")
    theirs = with_reference_model(ours)
    assert isinstance(theirs.model, Kosmos2ForConditionalGeneration)
    assert with_reference_model(theirs) is theirs
    weights = ours.model.state_dict()
    for name, weight in theirs.model.state_dict().items():
        assert weight.data_ptr() == weights[name].data_ptr(), name


CROPPED = {"use_square_size": False}
SETTINGS = [
    {},
    {"size": {"shortest_edge": 180}},
    {"crop_size": 224},
    {"crop_size": None},
    {"do_center_crop": False},
    {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.3, 0.4]},
    {"use_square_size": False, "size": {"height": 224, "width": 224}},
    {"size": None},
    CROPPED,
    {**CROPPED, "do_center_crop": False},
    {**CROPPED, "size": {"height": 200, "width": 224}},
    {"crop_size": 200},
    {"crop_size": {"height": 200, "width": 224}},
    {"do_rescale": False},
    {"rescale_factor": 1 / 127.5},
    {"do_normalize": False},
    {"do_resize": False},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_settings_are_taken_where_hugging_face_squashes_a_wide_image(tmp_path, changes):
    """`None` leaves a setting out, for which there is a default."""
    directory = shutil.copytree(SHAPES_DIRECTORY, tmp_path / "copy")
    path = directory / "processor_config.json"
    content = json.loads(path.read_text())
    settings = {**content["image_processor"], **changes}
    content["image_processor"] = {k: v for k, v in settings.items() if v is not None}
    path.write_text(json.dumps(content))
    files = locate_checkpoint(str(directory))
    if is_squashed_by_hugging_face(files):
        image_settings(files)
    else:
        with pytest.raises(CheckpointError, match="Set use_square_size to true"):
            image_settings(files)


def is_squashed_by_hugging_face(files: CheckpointFiles) -> bool:
    ramp = np.linspace(0, 255, 600).round().astype(np.uint8)
    wide = Image.fromarray(np.broadcast_to(ramp[None, :, None], (300, 600, 3)).copy())
    processor = AutoImageProcessor.from_pretrained(files.directory)
    values = processor(images=wide, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(each)[:, None, None] for each in mean_and_std(processor))
    levels, ours = (values * std + mean) * 255, torch.from_numpy(square_pixels(wide))
    return levels.shape == ours.shape and bool((levels - ours).abs().max() <= 3)


def mean_and_std(processor):
    return processor.image_mean, processor.image_std


def test_settings_may_stand_in_a_file_of_their_own(tmp_path):
    """Read the settings where microsoft/kosmos-2-patch14-224 has them."""
    directory = shutil.copytree(SHAPES_DIRECTORY, tmp_path / "copy")
    path = directory / "processor_config.json"
    settings = json.loads(path.read_text())["image_processor"]
    path.unlink()
    settings = {**settings, "processor_class": "Kosmos2Processor"}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load_checkpoint(str(directory), device="cpu").mean.flatten().tolist() == pytest.approx(
        settings["image_mean"]
    )


def test_annotating_imports_neither_a_model_of_hugging_face_nor_a_package_of_the_job():
    """The import of those models takes longer than that of torch."""
    done = run_with_core_alone(_ANNOTATE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"


_ANNOTATE = """
import sys
from kosmos2_core import Annotator
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene

annotator = Annotator.from_pretrained("shapes", device="cpu")
list(annotator.annotate([encode_jpeg(make_scene(seed=0, index=1), quality=95)]))
slow = {"transformers.modeling_utils", "transformers.processing_utils", "torch._dynamo"}
print(slow & set(sys.modules))
"""
