"""The page of `plan --sample --preview`, in a real browser."""

import json
from pathlib import Path

from playwright.sync_api import Page

from jobs.cli import run_command
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from tests.support.browser import DESKTOP, PHONE, visiting
from tests.support.tars import tar

SHAPES = [(320, 240), (200, 500), (700, 180), (64, 64)]  # width and height of the images
IMAGES = 8
LONG = "[b]<i>" + "long" * 60


def shards(folder: Path) -> Path:
    members = []
    for number in range(IMAGES):
        width, height = SHAPES[number % len(SHAPES)]
        scene = make_scene(21, number, objects=(1, 3), width=width, height=height)
        key = f"{LONG if number == 3 else 'image'}-{number:04d}"
        members.append((f"{key}.jpg", encode_jpeg(scene, 90)))
        members.append((f"{key}.json", json.dumps({"n": number}).encode()))
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar(members))
    return folder


def test_a_browser_shows_the_answers_of_all_tasks_on_a_phone_and_a_desktop(
    tmp_path: Path, browser: Page
) -> None:
    page, tasks = tmp_path / "sheet.html", ("--task", "brief", "--task", "detailed")
    sample = (str(shards(tmp_path / "in")), "--sample", str(IMAGES))
    assert run_command(["plan", *sample, "--preview", str(page), *tasks]) == 0
    with visiting(browser) as visit:
        visit.open(page)
        assert visit.page.locator("#found").text_content() == f"{IMAGES} of {IMAGES} images"
        images = visit.page.locator("section.beside")
        assert images.count() == IMAGES
        assert images.nth(0).locator("h2").all_text_contents() == ["brief", "detailed"]
        for size, columns in ((PHONE, 1), (DESKTOP, 2)):
            visit.resize(size)
            assert not visit.is_wider_than_the_screen()
            for shown in ("form", "nav", "figure", "image", "rect", "mark", "figcaption"):
                visit.assert_in_view(shown)
            answers = images.nth(0).locator("figure").all()
            boxes = [each.bounding_box() for each in answers]
            assert len({box["x"] for box in boxes if box}) == columns
    assert set(visit.requests) <= {"file", "data"}
    assert visit.troubles == []
