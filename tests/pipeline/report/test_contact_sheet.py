"""The contact sheet: a static page that shows data and trusts none of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from kosmos2_core.annotation import Annotation, Box, Entity
from pipeline.dataset.dataset import StoredDataset
from pipeline.report.cards import Card, Frame, Framed, Piece, Thumbnail
from pipeline.report.contact_sheet import CHUNK, contact_sheet, sheet_page
from pipeline.storage import InputStore
from tests.support.browser import DESKTOP, PHONE, Visit, visiting
from tests.support.commits import write_dataset
from tests.support.tars import an_annotation, picture

SIZE, THUMBNAIL = (800, 400), (480, 240)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"two\" 'one' & &amp; {{ 7*7 }}"
# A key and a folder: no "/", no ".".
HOSTILE_NAME = "<img src=x onerror=alert(3)>\"'&amp;&\n\t🐈\u202e"


def answer(caption: str, boxes: dict[str, list[tuple[float, ...]]], **changes: Any) -> Annotation:
    """`boxes` of each phrase: x1, y1, x2, y2 and perhaps a score."""
    entities = [
        Entity(
            phrase=phrase,
            start=caption.index(phrase),
            end=caption.index(phrase) + len(phrase),
            boxes=tuple(
                Box(**dict(zip(("x1", "y1", "x2", "y2", "score"), box, strict=False)), ul=0, lr=9)
                for box in found
            ),
        )
        for phrase, found in boxes.items()
    ]
    return an_annotation(caption=caption, entities=tuple(entities), **changes)


CATS = answer(
    "A cat 🐈 and two dogs.",
    {
        "A cat 🐈": [(0.0, 0.0, 0.5, 1.0, 0.876)],
        "two dogs": [(0.25, 0.5, 0.75, 0.75), (0.9, 0.1, 1.0, 0.2)],
    },
)
HOSTILE_ANSWER = answer(f"See {HOSTILE} end", {HOSTILE: [(0.1, 0.3, 0.4, 0.6, 0.5)]})
BARE = answer("Nothing at all.", {}, issues=("truncated", "stray_tag"))


def dataset(
    folder: Path, answers: list[Annotation], *, name: str = "shard", kind: str = "tar"
) -> StoredDataset:
    """A tar with one image per answer, and the dataset that a run would make of it."""
    members = [(f"{name}{i}.jpg", picture(i, size=SIZE)) for i in range(len(answers))]
    return write_dataset(folder, {f"{name}.{kind}": (members, [[one] for one in answers])})


def rendered(job: StoredDataset, *, count: int = 60, **options: Any) -> str:
    return "".join(contact_sheet(job, InputStore(), count=count, **options))


class Parsed(HTMLParser):
    """What a browser makes of the page before any script runs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.data: dict[str, list[Any]] = {"cards": [], "images": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if (kind := attributes.get("class")) in self.data and data.strip():
            self.data[kind] += json.loads(data)
        self.text[tag] = self.text.get(tag, "") + data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


def caption(card: dict[str, Any]) -> str:
    return "".join(piece["text"] for piece in card["pieces"])


# ---- what it holds


def test_each_annotation_is_a_card_with_its_boxes(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, BARE])))
    cats, bare = page.data["cards"]
    assert caption(cats) == "A cat 🐈 and two dogs."
    assert [(p["text"], p["entity"]) for p in cats["pieces"]] == [
        *(("A cat 🐈", 0), (" and ", None), ("two dogs", 1), (".", None))
    ]
    assert [[box["score"] for box in e["boxes"]] for e in cats["entities"]] == [
        [0.876],
        [None, None],
    ]
    assert (caption(bare), bare["issues"]) == ("Nothing at all.", ["truncated", "stray_tag"])
    assert [(c["width"], c["height"]) for c in page.data["cards"]] == [THUMBNAIL] * 2


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (2, [0, 4]), (5, [0, 1, 2, 3, 4])])
def test_a_few_annotations_are_spread_over_the_rows(
    tmp_path: Path, count: int, chosen: list[int]
) -> None:
    page = Parsed(rendered(dataset(tmp_path, [BARE] * 5), count=count))
    assert [card["index"] for card in page.data["cards"]] == chosen


def test_rows_that_are_wanted_are_there_too(tmp_path: Path) -> None:
    job = dataset(tmp_path, [BARE] * 5)
    wanted = {job.plan.shards[0].shard_id: {(3, "brief"), (4, "detailed"), (9, "brief")}}
    page = Parsed(rendered(job, count=1, wanted=wanted))
    assert [card["index"] for card in page.data["cards"]] == [0, 3]
    assert len(page.data["images"]) == 2


def test_an_output_without_commits_gives_an_empty_page(tmp_path: Path) -> None:
    job = dataset(tmp_path, [BARE])
    for name in job.store.list("annotations"):
        job.store.delete(name)
    assert Parsed(rendered(job)).data["cards"] == []


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_images_come_from_the_input(tmp_path: Path, kind: str) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, CATS, BARE], kind=kind)))
    images = {shown["image"] for shown in page.data["images"]}
    assert len(images) == 3
    assert all(image.startswith("data:image/jpeg;base64,") for image in images)


@pytest.mark.parametrize(
    ("meanwhile", "note"),
    [
        (lambda path: path.unlink(), "no such file or folder"),
        (lambda path: path.write_bytes(b"other"), "changed since it was planned"),
    ],
    ids=["deleted", "changed"],
)
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_an_image_that_is_gone_leaves_a_note(
    tmp_path: Path, meanwhile: Any, note: str, kind: str
) -> None:
    job = dataset(tmp_path, [CATS, BARE], kind=kind)
    meanwhile(tmp_path / "in" / f"shard.{kind}")
    page = Parsed(rendered(job))
    assert len(page.data["cards"]) == 2
    for shown in page.data["images"]:
        assert shown["image"] is None
        assert note in shown["problem"]


# ---- what it does not trust


def test_whatever_the_data_say_is_text(tmp_path: Path) -> None:
    harmless = Parsed(rendered(dataset(tmp_path / "plain", [BARE])))
    job = dataset(tmp_path / HOSTILE_NAME, [HOSTILE_ANSWER], name=HOSTILE_NAME)
    page = Parsed(rendered(job))
    assert page.elements[0:1] + [(tag, "") for tag, _ in page.elements] == (
        harmless.elements[0:1] + [(tag, "") for tag, _ in harmless.elements]
    )
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert caption(page.data["cards"][0]) == HOSTILE_ANSWER.caption
    assert page.data["cards"][0]["key"] == f"{HOSTILE_NAME}0"
    assert job.store.uri in page.text["title"]


def test_it_refers_to_nothing_outside_of_itself(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, HOSTILE_ANSWER])))
    names = ("src", "href", "srcset", "action", "data", "xlink:href")
    assert [a for _, found in page.elements for a in names if a in found] == []
    assert not re.search(r"url\(|@import", page.text["style"])


def test_its_policy_allows_its_own_style_and_script_and_no_request(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [BARE])))
    [policy] = [a["content"] for a in page.attributes("meta") if a.get("http-equiv")]
    digest = "'sha256-[A-Za-z0-9+/]{43}='"
    rules = f"default-src 'none'; img-src data:; style-src {digest}; script-src {digest}"
    assert re.fullmatch(rules, policy)


# ---- in a real browser


def corners(left: float, top: float, right: float, bottom: float) -> pytest.approx:
    return pytest.approx([left, top, right, bottom], abs=1)


DRAWINGS = """() => {
    const corners = e => (r => [r.left, r.top, r.right, r.bottom])(e.getBoundingClientRect());
    const withoutStroke = e => { e.style.stroke = "none"; return corners(e); };
    const ofEntity = e => Number(e.dataset.entity);
    return [...document.querySelectorAll("figure")].map(figure => ({
        svg: corners(figure.querySelector("svg")),
        viewBox: figure.querySelector("svg").getAttribute("viewBox"),
        image: corners(figure.querySelector("image")),
        rects: [...figure.querySelectorAll("rect")].map(e => [ofEntity(e), withoutStroke(e)]),
        caption: figure.querySelector("p").textContent,
        small: figure.querySelector("small").textContent,
    }));
}"""
SIZES = """() => Promise.all([...document.querySelectorAll("image")].map(async drawn => {
    const image = new Image();
    image.src = drawn.getAttribute("href");
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
}))"""


def test_a_browser_draws_every_box_in_its_place_and_runs_nothing_of_the_data(
    tmp_path: Path, browser: Page
) -> None:
    answers = [CATS, HOSTILE_ANSWER, BARE]
    path = tmp_path / "sheet.html"
    path.write_text(rendered(dataset(tmp_path, answers, name=HOSTILE_NAME)))
    with visiting(browser) as visit:
        visit.open(path)
        visit.page.wait_for_timeout(200)  # for what should not happen
        drawings, sizes = visit.page.evaluate(DRAWINGS), visit.page.evaluate(SIZES)
    assert sizes == [list(THUMBNAIL)] * len(answers)
    assert [drawing["caption"] for drawing in drawings] == [one.caption for one in answers]
    for i, drawing in enumerate(drawings):
        assert drawing["small"].startswith(f"{HOSTILE_NAME}{i} · ")
    for drawing, one in zip(drawings, answers, strict=True):
        assert_boxes_are_in_place(drawing, one)


def assert_boxes_are_in_place(drawing: dict[str, Any], answer: Annotation) -> None:
    width, height = THUMBNAIL
    assert drawing["viewBox"] == f"0 0 {width} {height}"
    left, top, right, bottom = drawing["svg"]
    # As large as fits, in the middle.
    scale = min((right - left) / width, (bottom - top) / height)
    x, y = (left + right - width * scale) / 2, (top + bottom - height * scale) / 2
    across, down = width * scale, height * scale
    assert drawing["image"] == corners(x, y, x + across, y + down)
    boxes = [(i, box.xyxy) for i, entity in enumerate(answer.entities) for box in entity.boxes]
    assert len(drawing["rects"]) == len(boxes)
    for i, (x1, y1, x2, y2) in boxes:
        place = corners(x + x1 * across, y + y1 * down, x + x2 * across, y + y2 * down)
        assert any(found == [i, place] for found in drawing["rects"])


# ---- ten thousand of them


def many_cards(count: int) -> list[tuple[Card, Thumbnail]]:
    """Every 100th is flagged, every 7th speaks of dogs; scores go from 0 to 1."""
    return [(a_card(i, count), Thumbnail(problem="no picture")) for i in range(count)]


def a_card(i: int, count: int) -> Card:
    phrase = "a Dog" if i % 7 == 0 else "a cat"
    box = {"x1": 0.0, "y1": 0.0, "x2": 0.5, "y2": 0.5, "score": round(i / count, 4)}
    return Card(
        key=f"key{i}",
        shard=f"part-{i // 1000}",
        index=i % 1000,
        task="brief",
        width=100,
        height=50,
        pieces=(Piece(text=phrase, entity=0), Piece(text=" here")),
        entities=(Framed(phrase=phrase, boxes=(Frame(**box),)),),
        issues=("low_score",) if i % 100 == 0 else (),
    )


def shown_keys(page: Page) -> list[str]:
    return [text.partition(" ")[0] for text in page.locator("figure small").all_text_contents()]


def found(page: Page) -> str:
    return page.locator("#found").text_content() or ""


def test_ten_thousand_annotations_are_searched_and_leafed_through(
    tmp_path: Path, browser: Page
) -> None:
    path = tmp_path / "many.html"
    pieces = sheet_page(iter(many_cards(10_000)), about=["out"])
    path.write_text("".join(pieces))
    with visiting(browser) as visit:
        visit.open(path)
        assert_pages_turn(visit.page)
        assert_filters_choose(visit.page)
        visit.open(path, "#flag=low_score&page=2")
        visit.page.reload()
        assert (found(visit.page), shown_keys(visit.page)[0]) == (
            "100 of 10,000 annotations",
            f"key{CHUNK * 100}",
        )
        for size in (PHONE, DESKTOP):
            visit.resize(size)
            assert not visit.is_wider_than_the_screen()


def assert_pages_turn(page: Page) -> None:
    assert page.locator("figure").count() == CHUNK  # not ten thousand
    page.locator("#next").click()
    assert shown_keys(page) == [f"key{i}" for i in range(CHUNK, 2 * CHUNK)]
    page.locator("#page").fill("417")
    page.keyboard.press("Enter")
    assert shown_keys(page)[-1] == "key9999"
    assert page.locator("#next").is_disabled()
    page.locator("#sheet").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#page").input_value() == "416"


def assert_filters_choose(page: Page) -> None:
    field = page.locator
    field("[name=phrase]").fill("DOG")
    assert found(page) == "1,429 of 10,000 annotations"
    field("[name=shard]").fill("part-3")
    assert found(page) == "143 of 10,000 annotations"
    field("[name=min]").fill("0.3")
    field("[name=max]").fill("0.31")
    assert shown_keys(page) == [f"key{i}" for i in range(3003, 3101, 7)]
    field("[name=order]").select_option("highest")
    assert shown_keys(page)[0] == "key3094"
    field("[type=reset]").click()
    expect(field("#found")).to_have_text("10,000 of 10,000 annotations")
    field("[name=flag]").select_option("low_score")
    assert found(page) == "100 of 10,000 annotations"
    field("[name=flag]").select_option("clean")
    assert found(page) == "9,900 of 10,000 annotations"
    assert "flag=clean" in page.url


# ---- phrase <-> box


def test_a_phrase_and_its_boxes_are_shown_together(tmp_path: Path, browser: Page) -> None:
    path = tmp_path / "sheet.html"
    path.write_text(rendered(dataset(tmp_path, [CATS])))
    with visiting(browser, color_scheme="dark") as visit:
        visit.open(path)
        page = visit.page
        page.locator("mark").nth(1).hover()
        assert chosen(page) == ["mark1", "rect1", "rect1"]
        page.mouse.move(0, 0)
        assert chosen(page) == []
        page.locator("rect[data-entity='0']").hover(position={"x": 9, "y": 9})
        assert chosen(page) == ["mark0", "rect0"]
        page.mouse.move(0, 0)
        reach_by_keyboard(visit, "mark")
        assert chosen(page) == ["mark0", "rect0"]
        page.keyboard.press("Tab")
        assert chosen(page) == ["mark1", "rect1", "rect1"]


def chosen(page: Page) -> list[str]:
    return page.evaluate(
        """() => [...document.querySelectorAll(".looking .chosen")]
            .map(e => e.tagName.toLowerCase() + e.dataset.entity).sort()"""
    )


def reach_by_keyboard(visit: Visit, tag: str) -> None:
    for _ in range(20):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.tagName.toLowerCase()") == tag:
            return
    raise AssertionError(f"no {tag} within reach of the tabulator")
