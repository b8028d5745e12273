import pytest
from PIL import Image

from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.grounding.grid import box_of, cells_of
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.grounding.vocabulary import Vocabulary
from kosmos2_core.shapes.world.exercises import Skill, caption, exercises
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.scenes import make_scene
from kosmos2_core.shapes.world.tokens import (
    EOS,
    image_prefix,
    make_processor,
    shapes_ids,
)
from kosmos2_core.shapes.world.wording import enumerate_phrases

SCENES = [make_scene(9, index, width=32, height=32, world=WIDE_WORLD) for index in range(40)]
CAPTIONS = (Skill.BRIEF, Skill.DETAILED, Skill.PLAIN_BRIEF, Skill.PLAIN_DETAILED)


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture(scope="module")
def vocabulary(processor):
    return Vocabulary.from_tokenizer(processor.tokenizer)


def read(vocabulary, exercise):
    target = exercise.target_ids
    scores = TokenScores.uniform(len(target))
    return parse_tokens(vocabulary, exercise.prompt_ids, target, scores)


def on_grid(boxes):
    return [box_of(*cells_of(box)) for box in boxes]


def test_ids_are_the_tokenizers(processor):
    tokens = processor.tokenizer.convert_ids_to_tokens(range(len(processor.tokenizer)))
    assert shapes_ids().of == {token: at for at, token in enumerate(tokens)}


@pytest.mark.parametrize("skill", list(Skill))
def test_prompts_are_encoded_as_the_processor_does(processor, skill):
    prompts = {e.prompt: e for scene in SCENES[:12] for e in exercises(scene, skill)}
    blank = Image.new("RGB", (224, 224))
    for text, exercise in list(prompts.items())[:60]:
        ids = processor(text=text, images=blank)["input_ids"]
        assert ids == [*image_prefix(), *exercise.prompt_ids]
    assert len(image_prefix()) == PREFIX_LENGTH


@pytest.mark.parametrize("skill", list(Skill))
def test_every_skill_is_asked_and_every_target_ends_once(skill):
    asked = [exercise for scene in SCENES for exercise in exercises(scene, skill)]
    assert len(asked) >= len(SCENES) / 2
    assert all(e.target_ids[-1] == EOS and e.target_ids.count(EOS) == 1 for e in asked)


@pytest.mark.parametrize("skill", CAPTIONS)
def test_captions_read_as_intended(vocabulary, skill):
    for scene in SCENES:
        found = read(vocabulary, caption(scene, skill))
        said = enumerate_phrases([phrase for phrase, _ in scene.entities])
        is_detailed = skill in (Skill.DETAILED, Skill.PLAIN_DETAILED)
        start = (
            "Describe this image in detail: The image features" if is_detailed else "An image of"
        )
        assert found.caption == f"{start} {said}."
        assert not found.issues


@pytest.mark.parametrize("skill", [Skill.BRIEF, Skill.DETAILED])
def test_boxes_of_captions_are_the_truth_up_to_the_grid(vocabulary, processor, skill):
    for scene in SCENES:
        exercise = caption(scene, skill)
        truth = [(phrase, on_grid(boxes)) for phrase, boxes in scene.entities]
        found = read(vocabulary, exercise)
        assert [(e.phrase, [b.xyxy for b in e.boxes]) for e in found.entities] == truth
        text = processor.decode([*image_prefix(), *exercise.prompt_ids, *exercise.target_ids[:-1]])
        theirs = processor.post_process_generation(text)
        assert theirs == (found.caption, found.to_huggingface())


def test_phrases_are_grounded_in_all_their_boxes(vocabulary):
    for scene in SCENES:
        asked = {e.prompt: e for e in exercises(scene, Skill.PHRASE_GROUNDING)}
        for phrase, boxes in scene.entities:
            exercise = asked[f"<grounding><phrase> {phrase}</phrase>"]
            (entity,) = read(vocabulary, exercise).entities
            assert (entity.phrase, [b.xyxy for b in entity.boxes]) == (phrase, on_grid(boxes))


@pytest.mark.parametrize("skill", [Skill.GENERATION, Skill.BOX_QUESTION])
def test_boxes_in_prompts_are_those_of_an_object(vocabulary, skill):
    for scene in SCENES:
        boxes = on_grid(item.box for item in scene.objects)
        for exercise in exercises(scene, skill):
            (entity,) = read(vocabulary, exercise).entities
            assert entity.boxes[0].xyxy in boxes
            assert entity.boxes[0].source == "prompt"


def test_questions_have_one_answer_each():
    for scene in SCENES:
        for skill in (Skill.SIDE_QUESTION, Skill.COMPREHENSION, Skill.GROUNDED_QUESTION):
            answers = {}
            for exercise in exercises(scene, skill):
                assert answers.setdefault(exercise.prompt, exercise.target_ids) == (
                    exercise.target_ids
                )


def test_an_empty_scene_gets_no_box(vocabulary):
    scene = make_scene(9, 0, width=32, height=32, objects=(0, 0), world=WIDE_WORLD)
    found = read(vocabulary, caption(scene, Skill.BRIEF))
    assert (found.caption, found.entities) == ("An image of an empty background.", ())


def test_words_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="no piece '▁zebra'"):
        shapes_ids().prompt("a zebra")
