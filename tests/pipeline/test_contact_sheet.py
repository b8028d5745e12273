"""The contact sheet: a static page that shows data and trusts none of it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from kosmos2_core.annotation import Annotation, Box, Entity
from pipeline.job import Job
from pipeline.report.contact_sheet import contact_sheet
from pipeline.storage import InputStore
from tests.commits import write_dataset
from tests.tars import an_annotation, picture

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
) -> Job:
    """A tar with one picture per answer, and the dataset that a run would make of it."""
    members = [(f"{name}{i}.jpg", picture(i, size=SIZE)) for i in range(len(answers))]
    return write_dataset(folder, {f"{name}.{kind}": (members, [[one] for one in answers])})


def rendered(job: Job, *, count: int = 60) -> str:
    return contact_sheet(job, InputStore(), count=count)


class Parsed(HTMLParser):
    """Elements as (tag, attributes), and the text of each tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "image"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.text[tag] = self.text.get(tag, "") + data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


# ---- what it shows


def test_each_annotation_is_a_figure_with_its_boxes(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, BARE])))
    assert (page.count("figure"), page.count("image"), page.count("rect")) == (2, 2, 3)
    assert page.count("b") == 2
    assert "A cat 🐈 and two dogs." in page.text["p"]
    assert "A cat 🐈 0.88" in page.text["title"]
    assert "truncated" in page.text["span"]


@pytest.mark.parametrize(("count", "figures"), [(1, [0]), (2, [0, 2]), (5, [0, 1, 2, 3, 4])])
def test_a_few_annotations_are_spread_over_the_rows(
    tmp_path: Path, count: int, figures: list[int]
) -> None:
    page = rendered(dataset(tmp_path, [BARE] * 5), count=count)
    assert [int(i) for i in re.findall(r"#(\d+) · brief", page)] == figures


def test_an_output_without_commits_gives_an_empty_page(tmp_path: Path) -> None:
    job = dataset(tmp_path, [BARE])
    for name in job.store.list("annotations"):
        job.store.delete(name)
    assert Parsed(rendered(job)).count("figure") == 0


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_pictures_come_from_the_input(tmp_path: Path, kind: str) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, CATS, BARE], kind=kind)))
    images = [attributes["href"] for tag, attributes in page.elements if tag == "image"]
    assert len(set(images)) == 3


@pytest.mark.parametrize(
    ("meanwhile", "note"),
    [
        (lambda path: path.unlink(), "no such object"),
        (lambda path: path.write_bytes(b"other"), "changed since it was planned"),
    ],
    ids=["deleted", "changed"],
)
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_picture_that_is_gone_leaves_a_note(
    tmp_path: Path, meanwhile: Any, note: str, kind: str
) -> None:
    job = dataset(tmp_path, [CATS, BARE], kind=kind)
    meanwhile(tmp_path / "in" / f"shard.{kind}")
    page = Parsed(rendered(job))
    assert (page.count("figure"), page.count("image"), page.count("rect")) == (2, 0, 0)
    assert page.text["div"].count(note) == 2


# ---- what it does not trust


TEMPLATE_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "p", "main", "figure", "svg"),
    *("image", "rect", "div", "figcaption", "b", "span", "small"),
}


@pytest.mark.parametrize("is_missing", [False, True])
def test_whatever_the_data_say_is_text(tmp_path: Path, is_missing: bool) -> None:
    job = dataset(tmp_path / HOSTILE_NAME, [HOSTILE_ANSWER], name=HOSTILE_NAME)
    if is_missing:
        shutil.rmtree(tmp_path / HOSTILE_NAME / "in")
    page = Parsed(rendered(job))
    assert page.tags() <= TEMPLATE_TAGS
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert HOSTILE in page.text["b"]
    assert f"{HOSTILE_NAME}0 · " in page.text["small"]  # the key
    assert job.store.uri in page.text["title"]
    if is_missing:
        assert f"{HOSTILE_NAME}/in/{HOSTILE_NAME}.tar" in page.text["div"]
    else:
        assert f"{HOSTILE} 0.50" in page.text["title"]
        [label] = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
        assert label.startswith(f"{HOSTILE_NAME}0 · ")


def test_it_refers_to_nothing_outside_of_itself(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [CATS, HOSTILE_ANSWER])))
    links = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "href", "srcset", "action", "data", "xlink:href")
        if name in attributes
    ]
    assert [link.split(",")[0] for link in links] == ["data:image/jpeg;base64"] * 2
    assert not re.search(r"url\(|@import", page.text["style"])


def test_its_policy_forbids_scripts_and_requests(tmp_path: Path) -> None:
    page = Parsed(rendered(dataset(tmp_path, [BARE])))
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


# ---- in a real browser


@contextmanager
def browser_page() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "no browser to test with: apt-get install chromium"
    flags = ["no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", "disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[f"--{flag}" for flag in flags]
        )
        yield browser.new_page(viewport={"width": 1000, "height": 800})
        browser.close()


def corners(left: float, top: float, right: float, bottom: float) -> pytest.approx:
    return pytest.approx([left, top, right, bottom], abs=1)


def test_a_browser_draws_every_box_in_its_place_and_runs_nothing(tmp_path: Path) -> None:
    answers = [CATS, HOSTILE_ANSWER, BARE]
    path = tmp_path / "sheet.html"
    path.write_text(rendered(dataset(tmp_path, answers, name=HOSTILE_NAME)))
    requests: list[str] = []
    troubles: list[str] = []
    with browser_page() as page:
        page.on("request", lambda request: requests.append(request.url.split(":")[0]))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_timeout(200)  # for what should not happen
        drawings = page.evaluate(
            """() => {
                const corners = e => (r => [r.left, r.top, r.right, r.bottom])(
                    e.getBoundingClientRect());
                const withoutStroke = e => { e.style.stroke = "none"; return corners(e); };
                return [...document.querySelectorAll("figure")].map(figure => ({
                    svg: corners(figure.querySelector("svg")),
                    viewBox: figure.querySelector("svg").getAttribute("viewBox"),
                    image: corners(figure.querySelector("image")),
                    rects: [...figure.querySelectorAll("rect")].map(withoutStroke),
                    caption: figure.querySelector("p").textContent,
                }));
            }"""
        )
        sizes = page.evaluate(
            """() => Promise.all([...document.querySelectorAll("image")].map(async drawn => {
                const image = new Image();
                image.src = drawn.getAttribute("href");
                await image.decode();
                return [image.naturalWidth, image.naturalHeight];
            }))"""
        )
    assert set(requests) <= {"file", "data"}
    assert troubles == []
    assert sizes == [list(THUMBNAIL)] * len(answers)
    assert [drawing["caption"] for drawing in drawings] == [one.caption for one in answers]
    width, height = THUMBNAIL
    for drawing, one in zip(drawings, answers, strict=True):
        assert drawing["viewBox"] == f"0 0 {width} {height}"
        left, top, right, bottom = drawing["svg"]
        # As large as fits, in the middle.
        scale = min((right - left) / width, (bottom - top) / height)
        x, y = (left + right - width * scale) / 2, (top + bottom - height * scale) / 2
        assert drawing["image"] == corners(x, y, x + width * scale, y + height * scale)
        boxes = [box.xyxy for entity in one.entities for box in entity.boxes]
        assert len(drawing["rects"]) == len(boxes)
        for rect, (x1, y1, x2, y2) in zip(drawing["rects"], boxes, strict=True):
            across, down = width * scale, height * scale
            assert rect == corners(x + x1 * across, y + y1 * down, x + x2 * across, y + y2 * down)
