import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.checkpoint.processor import MEAN, STD
from kosmos2_core.grounding.grid import GRID
from kosmos2_core.shapes.train import main
from kosmos2_core.shapes.training.batches import dense_targets, make_batch, pack
from kosmos2_core.shapes.training.initialisation import initialise
from kosmos2_core.shapes.training.learner import FULL, Learner, Size, word_logits
from kosmos2_core.shapes.training.loop import TrainingRun, train
from kosmos2_core.shapes.training.samples import (
    BACKGROUND,
    PATCHES,
    TrainingSample,
    dense_of,
    make_sample,
)
from kosmos2_core.shapes.training.stages import make_stages, rate_factor
from kosmos2_core.shapes.world.exercises import Skill, exercises
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.scenes import make_scene
from kosmos2_core.shapes.world.tokens import image_prefix

TINY = Size(
    vision_width=32,
    vision_layers=2,
    vision_heads=2,
    vision_ffn=128,
    text_width=32,
    text_layers=1,
    text_heads=2,
)


class Killed(Exception):
    pass


def run(directory, **changes):
    options = {"seed": 3, "size": TINY, "save_every": 2, "report_every": 1}
    return TrainingRun(
        directory=directory, stages=make_stages(3, 2, 2, batch_size=2), **(options | changes)
    )


def silent(_):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    checked = []
    train(run(directory), is_resumed=False, report=silent, check=checked.append)
    assert [stage.name for stage in checked] == ["reading", "joint"]
    return directory


@pytest.fixture(scope="module")
def learner():
    made = Learner(TINY)
    initialise(made, 0)
    return made


# Before anything is saved, in the first stage, and in the second; the third begins likewise.
@pytest.mark.parametrize("lines", [1, 3, 4, pytest.param(6, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_weights(trained, tmp_path, lines):
    said = []

    def report(line):
        said.append(line)
        if len(said) == lines:
            raise Killed

    with pytest.raises(Killed):
        train(run(tmp_path), is_resumed=False, report=report, check=silent)
    train(run(tmp_path), is_resumed=True, report=silent, check=silent)
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path, trained))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resuming_under_other_settings_is_refused(trained):
    with pytest.raises(ValueError, match="begun with other settings"):
        train(run(trained, seed=4), is_resumed=True, report=silent, check=silent)


def test_command_does_not_overwrite_a_run(trained, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(trained)])
    assert "contains a run: use --resume" in capsys.readouterr().err


def test_training_moves_the_weights_of_every_part(trained, learner):
    start = Learner(TINY)
    initialise(start, 3)
    before, after = start.model.state_dict(), load_file(trained / "model.safetensors")
    moved = [n for n, w in after.items() if not torch.equal(w, before[n].half())]
    still = {name for name in after if name not in moved}
    # Softmax does not see a constant in every key; nothing looks at these biases.
    assert all(name.endswith("k_proj.bias") or "patch" in name for name in still), still


def test_checkpoint_loads_with_everything_recorded(trained):
    checkpoint = load_checkpoint(str(trained), device="cpu")
    assert checkpoint.no_repeat_ngram_size == 0
    assert json.loads((trained / "config.json").read_text())["no_repeat_ngram_size"] == 0
    processor = json.loads((trained / "processor_config.json").read_text())
    assert processor["image_processor"]["use_square_size"] is True
    assert processor["image_processor"]["size"] == {"shortest_edge": 224}


def test_the_shipped_size_fits_into_eight_megabytes():
    parameters = sum(p.numel() for p in Learner(FULL).model.parameters())
    assert parameters * 2 < 7.9e6  # bytes of float16


def test_packed_exercises_are_read_as_the_model_reads_each_alone(learner):
    scene = make_scene(5, 5, width=64, height=64, world=WIDE_WORLD, objects=(3, 3))
    asked = [
        exercises(scene, skill)[0] for skill in (Skill.BRIEF, Skill.SIDE_QUESTION, Skill.GENERATION)
    ]
    packed = pack([asked])
    pixels = torch.from_numpy(make_sample(5, 5, None).pixels.copy())[None]
    with torch.no_grad():
        latents = learner.latents(learner.encode(pixels).features)
        table = learner.table()
        ours = word_logits(learner.decode(packed, latents, table), table)[0]
        text = learner.model.text_model
        text.model.embed_tokens.weight.copy_(table)
        for segment, exercise in enumerate(asked, start=1):
            ids = torch.tensor([[*image_prefix(), *exercise.prompt_ids, *exercise.target_ids[:-1]]])
            places = torch.zeros_like(ids)
            places[:, 2:66] = 1
            theirs = text(
                input_ids=ids, image_embeds=latents, image_embeds_position_mask=places
            ).logits[0, len(image_prefix()) :]
            assert torch.allclose(ours[packed.segments[0] == segment], theirs, atol=1e-4)


def test_see_is_the_models_own_vision_path(learner):
    pixels = make_batch(5, 0, 2, None).pixels
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        ours = learner.latents(learner.encode(pixels).features)
        theirs = learner.model.vision_model((pixels.float() / 255 - mean) / std)[0]
        theirs = learner.model.vision_model.model.post_layernorm(theirs)
        theirs = torch.nn.functional.normalize(theirs, dim=-1)
        assert torch.allclose(ours, learner.model.image_to_text_projection(theirs)[0], atol=1e-5)


def test_labels_are_what_follows_the_prompt():
    scene = make_scene(5, 5, width=64, height=64, world=WIDE_WORLD, objects=(2, 2))
    (first, *_), (second, *_) = (exercises(scene, s) for s in (Skill.BRIEF, Skill.COUNT_QUESTION))
    packed = pack([[first, second], [first]])
    labels = packed.labels[packed.labels >= 0].tolist()
    assert labels == [*first.target_ids, *second.target_ids, *first.target_ids]


def test_patches_know_their_object():
    for index in range(30):
        scene = make_scene(6, index, width=64, height=64, world=WIDE_WORLD)
        dense = dense_of(scene)
        owners = dense.owner.reshape(PATCHES, PATCHES)
        for rank, item in enumerate(scene.objects):
            rows, columns = np.nonzero(owners == rank)
            x1, y1, x2, y2 = np.multiply(item.box, PATCHES)
            assert all(int(x1) <= c < x2 for c in columns)
            assert all(int(y1) <= r < y2 for r in rows)
        if not scene.objects:
            assert (owners == BACKGROUND).all()
            assert not dense.mask.any()


def test_edges_are_cells_of_the_grid():
    scene = make_scene(6, 1, width=64, height=64, world=WIDE_WORLD, objects=(2, 2))
    for item, row in zip(scene.objects, dense_of(scene).attributes, strict=True):
        left, top, right, bottom = row[-4:]
        assert left == int(item.box[0] * GRID)
        assert 0 <= left <= right < GRID
        assert 0 <= top <= bottom < GRID


def test_rates_warm_up_and_end_at_their_share():
    stage = make_stages(100, 0, 0)[0]
    assert rate_factor(stage, 0) < 0.1
    assert rate_factor(stage, stage.warm_up) == 1
    assert rate_factor(stage, 99) == pytest.approx(stage.end_share, abs=0.01)


def test_an_object_looks_for_the_other_one_of_its_kind():
    scenes = (
        make_scene(8, i, width=64, height=64, world=WIDE_WORLD, objects=(2, 4)) for i in range(60)
    )
    paired = next(s for s in scenes if len(s.entities) < len(s.objects))
    dense = dense_of(paired)
    first, second = np.flatnonzero(dense.twin >= 0)
    assert paired.objects[first].phrase == paired.objects[second].phrase
    assert dense.twin[[first, second]].tolist() == [second, first]
    targets = dense_targets([TrainingSample(pixels=paired.pixels, dense=dense, exercises=())])
    owners = dense.owner[targets.at.numpy()]
    for owner, looked_at in zip(owners, targets.twins.numpy(), strict=True):
        assert looked_at.sum() == pytest.approx(1)
        where = dense.owner[np.flatnonzero(looked_at[1:])].tolist()
        assert set(where) == ({dense.twin[owner]} if dense.twin[owner] >= 0 else set())
        assert looked_at[0] == (dense.twin[owner] < 0)
