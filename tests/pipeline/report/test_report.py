"""The run report: what it counts, what it shows, and that it trusts none of it."""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Page

from jobs.cli import run_command
from kosmos2_core.annotation import Annotation, Box, Entity, Issue
from kosmos2_core.grounding.grid import GRID, box_of
from pipeline.costs.actor_time import ActorTime
from pipeline.costs.throughput import PAUSE_S, Pause, Timed, throughput_of
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import annotations_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.spending import costs_of_dataset
from pipeline.reading.sample_reader import SampleReader
from pipeline.report.charts import HEIGHT, heat_map, histogram
from pipeline.report.figures import (
    EXAMPLES_PER_FLAG,
    MOST_BOXES,
    SCORE_BINS,
    DatasetFigures,
    draws_of,
)
from pipeline.report.frequent import Frequent
from pipeline.report.reasons import Reason, Reasons
from pipeline.report.rejected_images import rejected_images
from pipeline.report.run_report import report_page, run_report
from pipeline.report.scan import scan
from pipeline.report.shares import Shares, quantiles
from pipeline.report.statistics import statistics
from pipeline.schema import ANNOTATION, REJECTION
from pipeline.storage import InputStore
from tests.support.browser import DESKTOP, PHONE, visiting
from tests.support.commits import write_dataset
from tests.support.tars import (
    a_sample,
    a_shard,
    an_annotation,
    annotation_row,
    picture,
    rejected_row,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"two\" 'one' & &amp; {{ 7*7 }}"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SHARD = a_shard()


# ---- counting


@pytest.mark.parametrize("capacity", [3, 100])
def test_frequent_values_are_found_in_bounded_memory(capacity: int) -> None:
    draw = random.Random(3)
    values = [str(min(int(draw.paretovariate(0.8)), 400)) for _ in range(5000)]
    truth = Counter(values)
    counted = Frequent(capacity=capacity)
    for start in range(0, len(values), 50):
        part = Frequent(capacity=capacity)
        part.add(values[start : start + 50])
        counted.merge(part)
        assert len(counted.counts) <= 2 * capacity
    for value, count in counted.top(3):
        assert truth[value] - counted.missed <= count <= truth[value]
    if capacity == 100:
        assert counted.top(1) == [("1", truth["1"])]


def test_few_values_are_counted_exactly() -> None:
    counted = Frequent()
    counted.add(["b", "a", "c", "a", "b"])
    assert (counted.top(2), counted.missed) == ([("a", 2), ("b", 2)], 0)


def drawn_annotation(draw: random.Random) -> Annotation:
    entities = tuple(
        Entity(
            phrase=draw.choice(("A  cat", "a cat", "a dog")),
            start=0,
            end=5,
            boxes=tuple(drawn_box(draw) for _ in range(draw.randint(1, 3))),
        )
        for _ in range(draw.choice((0, 1, 2, 15)))
    )
    return an_annotation(
        draw.choice(("brief", "detailed")),
        caption="An image " + "word " * draw.randint(0, 200),
        prompt_chars=8,
        entities=entities,
        issues=tuple(draw.sample(list(Issue), draw.choice((0, 0, 1, 3)))),
    )


def drawn_box(draw: random.Random) -> Box:
    left, right = sorted(draw.choices(range(GRID), k=2))
    top, bottom = sorted(draw.choices(range(GRID), k=2))
    ul, lr = top * GRID + left, bottom * GRID + right
    x1, y1, x2, y2 = box_of(ul, lr)
    score = draw.choice((None, 0.0, 0.99, 1.0, draw.random()))
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=ul, lr=lr, score=score)


@pytest.fixture(scope="module")
def annotations() -> list[Annotation]:
    draw = random.Random(11)
    return [drawn_annotation(draw) for _ in range(300)]


def counted(annotations: Sequence[Annotation], *, batch: int) -> DatasetFigures:
    """As a scan does: each shard by itself, batch by batch."""
    rows = [annotation_row("a", a_sample(i), one) for i, one in enumerate(annotations)]
    total = DatasetFigures()
    for start in range(0, len(rows), 100):
        part, draws = DatasetFigures(), draws_of(f"shard{start}")
        table = pa.Table.from_pylist(rows[start : start + 100], schema=ANNOTATION)
        for some in table.to_batches(max_chunksize=batch):
            part.add(some, f"shard{start}", draws.random(some.num_rows))
        total.merge(part)
    return total


@pytest.mark.parametrize("batch", [7, 100])
def test_figures_are_those_of_the_rows(annotations: list[Annotation], batch: int) -> None:
    figures = counted(annotations, batch=batch)
    boxes = [b for a in annotations for e in a.entities for b in e.boxes]
    found = figures.all_boxes()
    assert (found.boxes, found.phrases) == (len(boxes), sum(len(a.entities) for a in annotations))
    assert found.scores.missing == sum(b.score is None for b in boxes)
    scores = [b.score for b in boxes if b.score is not None]
    assert (
        found.scores.in_bins(SCORE_BINS).tolist()
        == np.histogram(scores, SCORE_BINS, (0, 1))[0].tolist()
    )
    per_image = Counter(min(sum(len(e.boxes) for e in a.entities), MOST_BOXES) for a in annotations)
    assert dict(enumerate(found.per_image)) == {i: per_image[i] for i in range(MOST_BOXES + 1)}
    assert figures.by_task == Counter(a.task for a in annotations)
    assert figures.flags.counts == Counter(issue for a in annotations for issue in a.issues)
    assert figures.flags.clean == Counter(a.task for a in annotations if not a.issues)
    words = Counter(len(a.caption.split()) - 2 for a in annotations)
    assert figures.words.lengths[:100].tolist() == [words[i] for i in range(100)]
    phrases = Counter(" ".join(e.phrase.lower().split()) for a in annotations for e in a.entities)
    assert figures.words.phrases.top(5) == sorted(phrases.items(), key=lambda item: -item[1])


def test_quantiles_are_those_of_the_numbers() -> None:
    draw = np.random.default_rng(1)
    scores = draw.beta(5, 2, 3000).astype(np.float32)
    whole = Shares()
    for part in np.array_split(scores, 7):
        some = Shares()
        some.add(pa.array([*part.tolist(), None], pa.float32()))
        whole.merge(some)
    levels = (0.0, 0.05, 0.5, 0.95, 1.0)
    assert whole.missing == 7
    assert np.allclose(whole.quantiles(levels), np.quantile(scores, levels), atol=0.002)
    assert Shares().quantiles(levels) is None


def test_quantiles_of_few_counts_are_exact() -> None:
    assert quantiles(np.array([0, 1, 0, 2, 1]), (0.0, 0.25, 0.5, 0.75, 1.0)) == [1, 1, 3, 3, 4]
    assert quantiles(np.zeros(5, np.int64), (0.5,)) is None


def test_heat_maps_are_those_of_the_boxes(annotations: list[Annotation]) -> None:
    coverage, sizes = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for box in (b for a in annotations for e in a.entities for b in e.boxes):
        rows, columns = slice(box.ul // GRID, box.lr // GRID), slice(box.ul % GRID, box.lr % GRID)
        coverage[rows.start : rows.stop + 1, columns.start : columns.stop + 1] += 1
        sizes[rows.stop - rows.start, columns.stop - columns.start] += 1
    found = counted(annotations, batch=50).all_boxes()
    assert (found.coverage == coverage).all()
    assert (found.sizes == sizes).all()


def test_examples_of_a_flag_have_it_and_are_the_same_at_every_reading(
    annotations: list[Annotation],
) -> None:
    figures = counted(annotations, batch=7)
    for flag, rows in figures.flags.examples.items():
        assert len(rows) == min(EXAMPLES_PER_FLAG, figures.flags.counts[flag])
        for row in rows:
            assert flag in annotations[row.index].issues
            assert row.task == annotations[row.index].task
    assert counted(annotations, batch=100).wanted() == figures.wanted()


def test_reasons_are_counted_and_shown_by_the_first_samples() -> None:
    rows = [
        rejected_row(SHARD, index, task, kind)["rejected"]
        for index, kind in ((9, "big"), (3, "big"), (5, "empty"), (1, "big"), (7, "big"))
        for task in ("brief", "detailed")
    ]
    whole = Reasons()
    for some in (rows[:5], rows[5:]):
        part = Reasons()
        part.add(pa.RecordBatch.from_pylist(some, schema=REJECTION), SHARD.shard_id)
        whole.merge(part)
    big = Reason("decode", "big")
    assert whole.counts == {big: 8, Reason("decode", "empty"): 2}
    assert [sample.index for sample in whole.examples[big]] == [1, 3, 7]


# ---- how fast it went


def timed(*seconds: float) -> list[Timed]:
    return [Timed(at=BEGAN + timedelta(seconds=s), images=100) for s in seconds]


def test_pace_is_images_by_time_of_work() -> None:
    found = throughput_of(timed(40, 10, 20, 30), BEGAN)
    assert found is not None
    assert (found.worked_s, found.images_per_s, found.pauses) == (40, 10, ())
    assert found.bins == (10,)


def test_pause_between_two_runs_is_left_out() -> None:
    found = throughput_of(timed(10, 20, 30, 5030, 5040), BEGAN)
    assert found is not None
    assert found.pauses == (Pause(after_s=30, length_s=5000),)
    assert (found.worked_s, found.images_per_s) == (40, 10)


def test_time_before_a_copy_is_no_work() -> None:
    found = throughput_of(timed(90_000, 90_010, 90_020), BEGAN)
    assert found is not None
    assert found.began == BEGAN + timedelta(seconds=90_000)
    assert (found.worked_s, found.images_per_s, found.pauses) == (20, 10, ())


def test_slow_commits_are_not_pauses() -> None:
    times = [PAUSE_S * 2 * i for i in range(1, 20)]
    found = throughput_of(timed(*times), BEGAN)
    assert found is not None
    assert (found.pauses, found.worked_s) == ((), times[-1])


def test_bins_hold_all_images() -> None:
    found = throughput_of(timed(*range(1, 401)), BEGAN)
    assert found is not None
    assert len(found.bins) == 60
    assert sum(found.bins) * found.worked_s / 60 == pytest.approx(40_000)


@pytest.mark.parametrize("commits", [[], timed(0, 0, 0)], ids=["none", "all at once"])
def test_no_pace_without_time(commits: list[Timed]) -> None:
    assert throughput_of(commits, BEGAN) is None


# ---- drawing


def test_bars_are_as_high_as_their_share() -> None:
    chart = histogram([0, 5, 10], str, link=lambda i: f"#{i}")
    assert [bar.height for bar in chart.bars] == [0, HEIGHT / 2, HEIGHT]
    assert [bar.link for bar in chart.bars] == ["", "#1", "#2"]


def test_heat_map_draws_each_cell_in_one_shade() -> None:
    counts = np.array([[0, 1, 80], [40, 0, 0], [0, 0, 79]])
    paths = heat_map(counts).paths
    assert paths[0] == "M1 0h1v1h-1z"
    assert paths[3] == "M0 1h1v1h-1z"
    assert paths[7] == "M2 0h1v1h-1zM2 2h1v1h-1z"
    assert "".join(heat_map(np.zeros((3, 3), np.int64)).paths) == ""


# ---- the whole


SIZE = (60, 40)
CUT = picture(5, size=(600, 400))[:1500]
ERROR_PAGE = f"<html>{HOSTILE}".encode()


def annotated(i: int) -> list[Annotation]:
    low = () if i % 3 else (Issue.LOW_SCORE,)
    return [an_annotation(issues=low), an_annotation("detailed", caption=f"An image of a cat. {i}")]


def hostile_answers() -> list[Annotation]:
    entity = Entity(phrase=HOSTILE, start=0, end=len(HOSTILE), boxes=())
    said = {"caption": HOSTILE, "prompt_chars": 0, "entities": (entity,)}
    return [an_annotation(task, **said) for task in ("brief", "detailed")]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    """Two shards with rejects and a hostile key and phrase, a third that failed."""
    folder = tmp_path_factory.mktemp("report")
    key = HOSTILE.replace("/", "").replace(".", "")
    members = [(f"{i}.jpg", picture(i, size=SIZE)) for i in range(10)]
    first = [*members, ("cut.jpg", CUT), (f"{key}.jpg", ERROR_PAGE), ("empty.jpg", b"")]
    answers = [annotated(i) for i in range(10)]
    job = write_dataset(
        folder,
        {
            "a.tar": (first, [*answers, [], [], []]),
            "b.tar": (members, [hostile_answers(), *answers[1:]]),
            "c.tar": (members, None),
        },
        tasks=("brief", "detailed"),
    )
    failed = job.plan.shards[2].shard_id
    Ledger(job.store).record_failure(
        ShardFailed(shard_id=failed, error_type="broken", message=HOSTILE, retriable=False)
    )
    for i, shard in enumerate(job.plan.shards[:2]):
        at = BEGAN.timestamp() + 10 * (i + 1)
        os.utime(folder / "out" / annotations_key(shard.shard_id), (at, at))
    return job


def page_of(job: StoredDataset, *, sheet: str | None = None) -> str:
    return "".join(report_page(run_report(job, InputStore()), sheet=sheet))


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub("<[^>]*>", " ", page.partition("<body>")[2])).split())


def test_it_says_how_much_there_is(job: StoredDataset) -> None:
    text = text_of(page_of(job))
    for said in (
        *("shards committed 2 of 3; 0 left", "shards failed 1", "images 23", "annotations 40"),
        *("rejections 6 13.0% of all", "images/s 1.1 over 20 s of work"),
        *("brief 20", "detailed 20", "a cat 38", "low_score 7"),
    ):
        assert said in text, said


def test_statistics_are_the_figures_of_the_report(job: StoredDataset) -> None:
    found = statistics(job)
    assert (found.shards_committed, found.shards_planned, found.shards_failed) == (2, 3, 1)
    assert (found.images, found.annotated, found.rejected) == (23, 40, 6)
    assert sum(found.reject_reasons.values()) == 6
    assert found.reject_reasons["decode/truncated_image"] == 2
    assert (found.entities, found.boxes, found.without_box) == (40, 38, 2)
    assert {task: (f.annotations, f.boxes) for task, f in found.tasks.items()} == {
        "brief": (20, 19),
        "detailed": (20, 19),
    }
    assert found.issues["low_score"] == 7
    assert next(iter(found.phrases.items())) == ("a cat", 38)
    assert found.quantiles["box score"]["median"] == pytest.approx(0.5, abs=0.001)
    assert found.quantiles["phrase probability"]["p95"] == pytest.approx(np.exp(-0.25), abs=0.001)
    assert found.quantiles["entities per annotation"]["median"] == 1
    assert "box consistency" not in found.quantiles  # nothing was checked


def test_statistics_as_tables_and_as_json(
    job: StoredDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["stats", job.store.uri, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["images"], body["tasks"]["brief"]["boxes"]) == (23, 19)
    assert run_command(["stats", job.store.uri]) == 0
    shown = capsys.readouterr().out
    assert "2 of 3" in shown
    assert "decode/truncated_image" in shown
    assert "a cat" in shown


def test_statistics_of_nothing_are_none(tmp_path: Path) -> None:
    job = write_dataset(tmp_path, {"a.tar": ([("0.jpg", picture(size=SIZE))], None)})
    found = statistics(job)
    assert (found.images, found.quantiles, found.phrases) == (0, {}, {})
    assert run_command(["stats", job.store.uri]) == 0


def test_each_reason_has_samples_to_look_at(job: StoredDataset) -> None:
    page = page_of(job)
    text = text_of(page)
    assert "truncated_image, while it was decoded 2" in text
    assert "unknown_format, while it was decoded 2" in text
    assert "bytes that begin with: <html><script>alert(1)</script>" in text
    assert page.count("<img ") == 1
    assert "the part that can be decoded" in text
    assert "empty_image" in text


def test_samples_whose_shard_is_gone_leave_a_note(tmp_path: Path) -> None:
    members = [("0.jpg", picture(size=SIZE)), ("1.jpg", CUT)]
    job = write_dataset(tmp_path, {"a.tar": (members, [[an_annotation()], []])})
    (tmp_path / "in" / "a.tar").unlink()
    assert "can no longer be read" in text_of(page_of(job))


def test_image_that_killed_its_worker_is_not_opened(job: StoredDataset) -> None:
    report = run_report(job, InputStore())
    rows = [rejected_row(SHARD, 1, "brief", "worker_died")["rejected"]]
    reasons = Reasons()
    reasons.add(pa.RecordBatch.from_pylist(rows, schema=REJECTION), job.plan.shards[0].shard_id)
    shards = {shard.shard_id: shard for shard in job.plan.shards}
    [[shown]] = rejected_images(reasons, shards, SampleReader(store=InputStore()), "apply").values()
    assert (shown.image, "killed a worker" in shown.note) == (None, True)
    assert report.rejected.keys() == report.scan.reasons.counts.keys()


def test_output_without_commits_has_a_report(tmp_path: Path) -> None:
    job = write_dataset(tmp_path, {"a.tar": ([("0.jpg", picture(size=SIZE))], None)})
    text = text_of(page_of(job))
    assert "shards committed 0 of 1; 1 left" in text


def test_a_scan_reads_each_commit_once(job: StoredDataset) -> None:
    seen: list[tuple[int, int]] = []
    ids = sorted(Ledger(job.store).committed())
    found = scan(job.store, ids, lambda done, of: seen.append((done, of)))
    assert [commit.shard_id for commit in found.commits] == ids
    assert seen == [(1, 2), (2, 2)]


def test_report_on_s3_is_the_same(tmp_path: Path, s3_bucket: str) -> None:
    archives = {"a.tar": ([("0.jpg", picture(size=SIZE)), ("1.jpg", CUT)], [[an_annotation()], []])}
    job = write_dataset(tmp_path, archives, output=f"s3://{s3_bucket}/out")
    text = text_of(page_of(job))
    assert "annotations 1 100.0% unflagged" in text
    assert "the part that can be decoded" in text


def test_whatever_the_data_say_is_text(job: StoredDataset) -> None:
    page = page_of(job, sheet="contact-sheet.html")
    assert "<script" not in page
    assert not re.search(r"<img src=x|<[^>]+\son[a-z]+=", page)
    assert text_of(page).count("<script>alert(1)") == 4  # key, bytes, phrase, failure
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert {re.split("[#,]", link)[0] for link in links} == {
        "contact-sheet.html",
        "data:image/jpeg;base64",
    }


def test_costs_are_shown_or_said_to_be_unknown(job: StoredDataset) -> None:
    pages = []
    for time in (None, ActorTime.of(held_s=3600.0, busy_s=1800.0, gpus=2)):
        report = run_report(job, InputStore(), gpu_hour_cost=2.5)
        timed = [replace(commit, actor_time=time) for commit in report.scan.commits]
        costs = costs_of_dataset(job, timed, report.failures, 2.5)
        pages.append(text_of("".join(report_page(replace(report, costs=costs), sheet=None))))
    assert "unknown: " in pages[0]
    assert "cost so far" not in pages[0]
    assert "50% of them busy" in pages[1]
    assert f"cost so far {5.0 * len(timed):.2f}" in pages[1]


def test_without_a_sheet_it_links_nowhere(job: StoredDataset) -> None:
    assert "href" not in page_of(job)


def test_in_a_browser_it_is_readable_and_leads_into_the_sheet(
    job: StoredDataset, browser: Page, tmp_path: Path
) -> None:
    path = tmp_path / "a report.html"
    sheet = tmp_path / "the sheet.html"
    options = ["--html", str(path), "--sheet", str(sheet), "--count", "5"]
    assert run_command(["report", job.store.uri, *options]) == 0
    with visiting(browser) as visit:
        page = visit.page
        for size in (DESKTOP, PHONE):
            visit.resize(size)
            visit.open(path)
            assert not visit.is_wider_than_the_screen()
        assert page.get_by_text(HOSTILE).count() >= 2
        page.get_by_role("link", name="low_score").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("figure")
        assert page.locator("[name=flag]").input_value() == "low_score"
        # The examples; the seventh that there is may be among the five that are spread.
        assert (
            page.locator(".issue").count()
            == page.locator("figure").count()
            in (EXAMPLES_PER_FLAG, 7)
        )
        page.go_back()
        page.get_by_role("link", name=HOSTILE).click()
        page.wait_for_selector("#found")
        assert page.locator("[name=phrase]").input_value() == HOSTILE.lower()
        page.go_back()
        bar = page.get_by_role("link", name="0.50 to 0.55: 38")
        bar.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("figure")
        assert page.locator("[name=min]").input_value() == "0.50"
