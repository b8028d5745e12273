"""Captions without their prompt."""

import pytest

from kosmos2_core.annotation import Box, BoxSource, Entity, Grounding


def boxes(*sources: BoxSource) -> tuple[Box, ...]:
    return tuple(Box(x1=0, y1=0, x2=1, y2=1, ul=0, lr=1023, source=source) for source in sources)


def grounding(caption: str, prompt: str, **sources: tuple[BoxSource, ...]) -> Grounding:
    """Entities by phrase, "_" for a space, with the sources of their boxes."""
    entities = []
    for name, found in sources.items():
        phrase = name.replace("_", " ")
        start = caption.index(phrase)
        entities.append(
            Entity(phrase=phrase, start=start, end=start + len(phrase), boxes=boxes(*found))
        )
    return Grounding(caption=caption, entities=tuple(entities), issues=(), prompt_chars=len(prompt))


MODEL, PROMPT = ("model",), ("prompt",)


@pytest.mark.parametrize(
    ("full", "caption", "phrases"),
    [
        (
            grounding("An image of a cat 🐈 and 𝒜 dog.", "An image of", a_cat=MODEL, dog=MODEL),
            "a cat 🐈 and 𝒜 dog.",
            ["a cat", "dog"],
        ),
        (
            grounding("Describe it: The cat.", "Describe it:", The_cat=MODEL),
            "The cat.",
            ["The cat"],
        ),
        (grounding("A cat.", "", A_cat=MODEL), "A cat.", ["A cat"]),
        (grounding("An image of", "An image of"), "", []),
        (  # a phrase to be grounded: it is in the prompt, its boxes are the answer
            grounding("a snowman is warm", "a snowman", a_snowman=MODEL),
            "a snowman is warm",
            ["a snowman"],
        ),
        (
            grounding("See a snowman is warm", "See a snowman", a_snowman=MODEL),
            "a snowman is warm",
            ["a snowman"],
        ),
        (  # a question about a box: both go, the answer stays
            grounding(
                "Where is the fire? Near a pot.", "Where is the fire?", the_fire=PROMPT, a_pot=MODEL
            ),
            "Near a pot.",
            ["a pot"],
        ),
        (grounding("It is a hat", "It is", It=PROMPT), "a hat", []),
        (  # half in the prompt
            grounding("An image of a cat sits", "An image of a", a_cat=MODEL),
            "a cat sits",
            ["a cat"],
        ),
        (grounding("Of a cat: a dog", "Of a", a_cat=(), a_dog=MODEL), "cat: a dog", ["a dog"]),
    ],
)
def test_without_prompt(full: Grounding, caption: str, phrases: list[str]) -> None:
    cut = full.without_prompt()
    assert cut.caption == caption
    assert [entity.phrase for entity in cut.entities] == phrases
    for entity in cut.entities:
        assert cut.caption[entity.start : entity.end] == entity.phrase
    assert cut.without_prompt() == cut


def test_prompt_chars_count_what_remains_of_the_prompt() -> None:
    cut = grounding("See a snowman is warm", "See a snowman", a_snowman=MODEL).without_prompt()
    assert cut.caption[: cut.prompt_chars] == "a snowman"
