"""Datasets made of others: what goes, what is said of it, and that they are datasets themselves."""

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.grounding.grid import box_of
from pipeline.dataset.commit import read_commit
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.dataset.layout import DERIVED_KEY, SUCCESS_KEY, annotations_key
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.derived.account import Account, Amount
from pipeline.derived.deduplicating import dedup_dataset
from pipeline.derived.deriving import Derived
from pipeline.derived.filtering import BOXLESS, Filter, filter_dataset
from pipeline.derived.options import DedupOptions, FilterOptions
from pipeline.derived.pruning import amount, without_boxes, without_entities
from pipeline.driver.run import retry, run
from pipeline.errors import Conflict, SpecError, WrongIdentity
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.report.statistics import statistics
from pipeline.schema import ANNOTATION
from pipeline.spec.job import RetryOptions
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.verification.outputs import drift_from, verify_dataset
from tests.support.commits import dataset_of, write_dataset
from tests.support.tars import a_sample, a_shard, an_annotation, annotation_row, pictures

SHARD = a_shard()


def a_box(ul: int, lr: int, score: float | None = 0.9, **changes: Any) -> Box:
    x1, y1, x2, y2 = box_of(ul, lr)
    logp = None if score is None else -1.0
    source = "prompt" if score is None else "model"
    fields = {"score": score, "logp": logp, "source": source, **changes}
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=ul, lr=lr, **fields)


def said(words: str, boxes: dict[str, list[Box]], logprob: float = -0.1, **changes: Any) -> Any:
    caption = f"An image of {words}"
    entities = tuple(
        Entity(
            phrase=phrase,
            start=caption.index(phrase),
            end=caption.index(phrase) + len(phrase),
            phrase_logprob=logprob if found and found[0].source == "model" else None,
            boxes=tuple(found),
        )
        for phrase, found in boxes.items()
    )
    return an_annotation(caption=caption, entities=entities, **changes)


SMALL, LARGE, WHOLE = (33, 100), (33, 924), (0, 1023)
ANSWERS = [
    said(
        "a cat and two dogs",
        {"a cat": [a_box(*LARGE)], "two dogs": [a_box(*SMALL, 0.2), a_box(*LARGE, 0.6)]},
        issues=("low_score", "shared_box"),
    ),
    said("a hat", {"a hat": [a_box(*SMALL, 0.25)]}, issues=("low_score",)),
    said("a fire", {"a fire": [a_box(*LARGE, None)]}, issues=("truncated",)),
    said("the sky", {"the sky": [a_box(*WHOLE)]}, logprob=-3.0, issues=("whole_image_box",)),
]


@pytest.fixture
def job(tmp_path: Path) -> StoredDataset:
    members = pictures(4)
    return write_dataset(
        tmp_path,
        {
            "a.tar": ([*members, ("0009.jpg", b"broken")], [[answer] for answer in ANSWERS]),
            "b.tar": (members, [[answer] for answer in reversed(ANSWERS)]),
        },
    )


def filtered(job: StoredDataset, folder: Path, **options: Any) -> tuple[Derived, StoredDataset]:
    derived = filter_dataset(job, open_output(str(folder)), FilterOptions(**options))
    return derived, open_dataset(str(folder), StorageOptions())


def rows_of(job: StoredDataset) -> list[dict[str, Any]]:
    files = sorted(Path(job.store.uri.removeprefix("file://")).glob("annotations/*"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def captions(job: StoredDataset) -> list[str]:
    return [row["caption"].removeprefix("An image of ") for row in rows_of(job)][:4]


def findings(job: StoredDataset) -> Any:
    return verify_dataset(job.store, job.record).findings


# ---- pruning


def drawn(draw: random.Random) -> Annotation:
    phrases = draw.sample(("a cat", "two dogs", "the sky", "it"), draw.randint(0, 4))
    boxes = {
        phrase: [
            a_box(*draw.choice((SMALL, LARGE, WHOLE)), draw.choice((None, 0.125, 0.875)))
            for _ in range(draw.randint(0, 3))
        ]
        for phrase in phrases
    }
    return said(" and ".join(phrases), boxes)


@pytest.fixture(scope="module")
def drawn_rows() -> pa.Table:
    draw = random.Random(5)
    rows = [annotation_row("a", a_sample(i), drawn(draw)) for i in range(200)]
    return pa.Table.from_pylist(rows, schema=ANNOTATION)


def test_boxes_are_taken_out_as_in_python(drawn_rows: pa.Table) -> None:
    boxes = [b for r in drawn_rows.to_pylist() for e in r["entities"] for b in e["boxes"]]
    left, boxless = without_boxes(drawn_rows, np.array([b["score"] != 0.125 for b in boxes]))
    lost = 0
    for before, after in zip(drawn_rows.to_pylist(), left.to_pylist(), strict=True):
        expected = [
            {**e, "boxes": [b for b in e["boxes"] if b["score"] != 0.125]}
            for e in before["entities"]
        ]
        kept = [
            e
            for e, old in zip(expected, before["entities"], strict=True)
            if e["boxes"] or not old["boxes"]
        ]
        lost += len(expected) - len(kept)
        assert after["entities"] == kept
    assert lost == boxless > 10
    assert left.schema.equals(ANNOTATION)


def test_entities_are_taken_out_as_in_python(drawn_rows: pa.Table) -> None:
    entities = [e for row in drawn_rows.to_pylist() for e in row["entities"]]
    left = without_entities(drawn_rows, np.array([e["phrase"] != "a cat" for e in entities]))
    for before, after in zip(drawn_rows.to_pylist(), left.to_pylist(), strict=True):
        assert after["entities"] == [e for e in before["entities"] if e["phrase"] != "a cat"]
        assert after["caption"] == before["caption"]
    assert amount(left).entities == sum(e["phrase"] != "a cat" for e in entities)


def test_a_slice_of_a_table_is_pruned_like_a_table(drawn_rows: pa.Table) -> None:
    some = drawn_rows.slice(50, 20)
    copied = pa.Table.from_pylist(some.to_pylist(), schema=ANNOTATION)
    of_slice, of_copy = (
        Filter(FilterOptions(min_score=0.5, where=("box_count > 0",)).conditions)(SHARD, rows)
        for rows in (some, copied)
    )
    assert of_slice.annotated.equals(of_copy.annotated)
    assert of_slice.rejected.equals(of_copy.rejected)
    assert of_slice.account == of_copy.account


def test_accounts_add_up_and_survive_json() -> None:
    one = Account(before=Amount(boxes=3), after=Amount(boxes=1), dropped=Counter({"box: x": 2}))
    assert Account.from_json(one.to_json()) == one
    total = Account()
    total.merge(one)
    total.merge(one)
    assert (total.before.boxes, total.after.boxes, total.dropped) == (6, 2, {"box: x": 4})


# ---- what a condition does


@pytest.mark.parametrize(
    ("options", "left", "dropped"),
    [
        (
            {"min_score": 0.5},
            ["a cat and two dogs", "a hat", "a fire", "the sky"],
            {"box: --min-score 0.5": 2, BOXLESS: 1},
        ),
        (
            {"min_score": 0.5, "where": ("len(entities) > 0",)},
            ["a cat and two dogs", "a fire", "the sky"],
            {
                **{"box: --min-score 0.5": 2, BOXLESS: 1},
                'annotation: --where "len(entities) > 0"': 1,
            },
        ),
        (
            {"where_box": ("score * exp(phrase_logprob) > 0.5",), "where": ("box_count > 0",)},
            ["a cat and two dogs"],
            {
                'box: --where-box "score * exp(phrase_logprob) > 0.5"': 4,
                BOXLESS: 3,
                'annotation: --where "box_count > 0"': 3,
            },
        ),
        (
            {"min_phrase_logprob": -1, "without_issue": ("empty_grounding",)},
            ["a cat and two dogs", "a hat", "a fire"],
            {
                "entity: --min-phrase-logprob -1.0": 1,
                "annotation: --without-issue empty_grounding": 1,
            },
        ),
        (
            {"where_entity": ("phrase NOT LIKE 'a %'", "len(boxes) = 1")},
            ["a cat and two dogs", "a hat", "a fire", "the sky"],
            {
                "entity: --where-entity \"phrase NOT LIKE 'a %'\"": 3,
                'entity: --where-entity "len(boxes) = 1"': 1,
            },
        ),
        (
            {"max_area": 0.9, "min_side": 0.1, "where": ("box_count > 0",)},
            ["a cat and two dogs", "a fire"],
            {
                **{"box: --min-side 0.1": 2, "box: --max-area 0.9": 1, BOXLESS: 2},
                'annotation: --where "box_count > 0"': 2,
            },
        ),
        (
            {"with_issue": ("low_score",), "without_issue": ("shared_box",)},
            ["a hat"],
            {
                "annotation: --with-issue low_score": 2,
                "annotation: --without-issue shared_box": 1,
            },
        ),
        (
            {"where": ("width > 40 OR caption LIKE '%fire%'", "task = 'brief'")},
            ["a fire"],
            {"annotation: --where \"width > 40 OR caption LIKE '%fire%'\"": 3},
        ),
        ({"where": ("true",)}, ["a cat and two dogs", "a hat", "a fire", "the sky"], {}),
    ],
)
def test_what_does_not_meet_a_condition_is_dropped_and_counted(
    options: dict[str, Any],
    left: list[str],
    dropped: dict[str, int],
    job: StoredDataset,
    tmp_path: Path,
) -> None:
    derived, good = filtered(job, tmp_path / "good", **options)
    assert captions(good)[: len(left)] == left
    # Both shards hold the same answers.
    assert derived.account.dropped == {label: 2 * count for label, count in dropped.items()}
    rows = rows_of(good)
    assert asdict(derived.account.after) == {
        "annotations": len(rows),
        "entities": sum(len(row["entities"]) for row in rows),
        "boxes": sum(len(e["boxes"]) for row in rows for e in row["entities"]),
    }
    assert asdict(derived.account.before) == {"annotations": 8, "entities": 10, "boxes": 12}
    assert len(rows) == 2 * len(left)
    assert not findings(good)


def test_flags_are_told_anew_where_something_went(job: StoredDataset, tmp_path: Path) -> None:
    _, good = filtered(job, tmp_path / "good", min_score=0.3)
    assert {row["issues"][0] for row in rows_of(good)} == {"tiny_image"}  # of the sample: stays
    assert [row["issues"][1:] for row in rows_of(good)][:4] == [
        ["shared_box"],  # no score is low any more
        ["empty_grounding"],
        ["truncated"],
        ["whole_image_box"],  # nothing went: as it was
    ]


def test_what_went_is_a_rejection_with_its_condition(job: StoredDataset, tmp_path: Path) -> None:
    _, good = filtered(job, tmp_path / "good", without_issue=("truncated",))
    commit = read_commit(good.store, good.plan.shards[0].shard_id)
    found = commit.rows.rejected.select(["index", "stage", "error_type", "message"]).to_pylist()
    assert found[0] == {
        **{"index": 2, "stage": "filter", "error_type": "filtered"},
        "message": "--without-issue truncated",
    }
    assert (found[1]["index"], found[1]["stage"]) == (4, "decode")
    assert statistics(good).reject_reasons["filter/filtered"] == 2


def test_of_several_filters_each_is_remembered(job: StoredDataset, tmp_path: Path) -> None:
    _, once = filtered(job, tmp_path / "once", min_score=0.5)
    _, twice = filtered(once, tmp_path / "twice", where=("box_count > 0",))
    first, second = twice.record.identity.derived
    assert first.parameters == ("--min-score 0.5",)
    assert second.parameters == ('--where "box_count > 0"',)
    assert first.source_fingerprint == job.record.fingerprint
    assert second.source_fingerprint == once.record.fingerprint
    assert twice.record.source == once.store.uri
    prints = {j.record.fingerprint for j in (job, once, twice)}
    assert len(prints) == 3
    assert not findings(twice)


# ---- what is no condition


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"where": ("scor > 1",)},
            '--where "scor > 1" is not a valid condition on annotations: .*"scor"',
        ),
        ({"where": ("scor > 1",)}, "the columns are shard_id, .*, box_count"),
        ({"where_box": ("scor > 1",)}, r'"scor".*the columns are .*score, logp, consistency'),
        ({"where_box": ("score >",)}, "syntax error"),
        ({"where_box": ("score",)}, "its type is FLOAT, not BOOLEAN"),
        ({"where_box": ("true) FROM x; DROP TABLE x --",)}, "syntax error"),
        ({"where_box": ("true; SELECT true",)}, "more than one statement"),
        ({"where": ("count(*) > 1",)}, "GROUP BY|aggregate"),
        ({"where": ("row_number() OVER () > 1",)}, "refers to other rows"),
        ({"where": ("EXISTS (SELECT 1)",)}, "refers to other rows or tables"),
        ({"where": ("EXISTS (FROM read_csv('/etc/passwd'))",)}, "disabled|Cannot access"),
        ({"where": ("caption::INT > 1",)}, "Could not convert"),  # found on the first value
        ({"min_consistency": 0.5}, "--min-consistency cannot be used; leave it out"),
        ({}, "cannot be filtered without a condition"),
    ],
)
def test_what_is_no_condition_is_refused_by_name(
    options: dict[str, Any], told: str, job: StoredDataset, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=told):
        filtered(job, tmp_path / "good", **options)


def test_a_flag_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="no flag is named 'bad'; there are: truncated"):
        FilterOptions(without_issue=("bad",))


# ---- a dataset like any other


def test_a_filtered_dataset_can_be_exported_with_its_images(
    job: StoredDataset, tmp_path: Path
) -> None:
    _, good = filtered(job, tmp_path / "good", min_score=0.5, where=("box_count > 0",))
    options = ExportOptions(format="webdataset")
    coverage = export_dataset(good, InputStore(), open_output(str(tmp_path / "tars")), options)
    assert (coverage.annotations, coverage.boxes, coverage.is_complete) == (6, 8, True)


def test_an_export_of_it_says_what_was_done(job: StoredDataset, tmp_path: Path) -> None:
    _, good = filtered(job, tmp_path / "good", where=("box_count > 0 OR caption || '' = 'x'",))
    export_dataset(
        good, InputStore(), open_output(str(tmp_path / "x")), ExportOptions(format="boxes")
    )
    card = (tmp_path / "x" / "README.md").read_text()
    assert "| filter | `--where \"box_count > 0 OR caption \\|\\| '' = 'x'\"` |" in card
    record = json.loads((tmp_path / "x" / "_EXPORT.json").read_text())
    assert record["details"]["derived"][0]["source_fingerprint"] == job.record.fingerprint


def test_both_can_be_on_s3(tmp_path: Path, s3_bucket: str) -> None:
    archives = {"a.tar": (pictures(4), [[answer] for answer in ANSWERS])}
    job = write_dataset(tmp_path, archives, output=f"s3://{s3_bucket}/out")
    good, unique = f"s3://{s3_bucket}/good", f"s3://{s3_bucket}/good/unique"
    options = FilterOptions(min_score=0.5, without_issue=("empty_grounding",))
    derived = filter_dataset(job, open_output(good), options)
    assert (derived.totals.annotated, derived.is_complete) == (3, True)
    again = filter_dataset(job, open_output(good), options)
    assert (again.shards_new, again.account) == (0, derived.account)
    of_good = open_dataset(good, StorageOptions())
    assert not findings(of_good)
    dedup_dataset(of_good, InputStore(), open_output(unique), DedupOptions(near=0))
    assert not findings(open_dataset(unique, StorageOptions()))


def test_the_new_dataset_says_what_it_was_made_of(job: StoredDataset, tmp_path: Path) -> None:
    derived, good = filtered(job, tmp_path / "good", min_score=0.5)
    body = json.loads(good.store.get(DERIVED_KEY).data)
    assert (body["operation"], body["parameters"]) == ("filter", ["--min-score 0.5"])
    assert (body["source"], body["source_fingerprint"]) == (job.store.uri, job.record.fingerprint)
    assert body["dropped"] == dict(derived.account.dropped)
    assert (body["is_complete"], body["before"]["boxes"], body["after"]["boxes"]) == (True, 12, 8)
    assert json.loads(good.store.get(SUCCESS_KEY).data)["fingerprint"] == good.record.fingerprint
    assert good.record.spec.output == good.store.uri


def test_nothing_annotates_a_dataset_that_was_made_of_another(
    job: StoredDataset, tmp_path: Path
) -> None:
    _, good = filtered(job, tmp_path / "good", min_score=0.5)
    told = "`kosmos2 filter` derived it from .*; annotate that"
    with pytest.raises(SpecError, match=told):
        run(good.record.spec)
    with pytest.raises(SpecError, match=told):
        retry(good.store.uri, RetryOptions(samples=True, error_type="filtered"))


# ---- going on


class Killed(Exception):
    pass


def test_a_filter_that_was_cut_off_goes_on_to_the_same_dataset(
    job: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"min_score": 0.5}
    derived, _ = filtered(job, tmp_path / "whole", **options)
    call, last = Filter.__call__, job.plan.shards[1].shard_id

    def dies(self: Filter, shard: Shard, rows: pa.Table) -> Any:
        if shard.shard_id == last:
            raise Killed
        return call(self, shard, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Filter, "__call__", dies)
        with pytest.raises(Killed):
            filtered(job, tmp_path / "good", **options)
    assert Ledger(open_output(str(tmp_path / "good"))).committed() != {last}
    again, good = filtered(job, tmp_path / "good", **options)
    assert again.shards_new == 1
    assert (again.account, again.totals) == (derived.account, derived.totals)
    assert files_in(tmp_path / "good") == files_in(tmp_path / "whole")
    assert not findings(good)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("annotations", "rejected", "plan")
        for path in sorted((folder / part).iterdir())
    }


def test_shards_that_came_later_are_taken_in_by_the_same_command(
    job: StoredDataset, tmp_path: Path
) -> None:
    key = annotations_key(job.plan.shards[1].shard_id)
    later = job.store.get(key).data
    job.store.delete(key)
    derived, good = filtered(job, tmp_path / "good", min_score=0.5)
    assert (derived.is_complete, derived.totals.shards, derived.shards_planned) == (False, 1, 2)
    assert SUCCESS_KEY not in good.store.list("")
    job.store.create(key, later)
    derived, good = filtered(job, tmp_path / "good", min_score=0.5)
    assert (derived.is_complete, derived.shards_new) == (True, 1)
    assert asdict(derived.account.before) == {"annotations": 8, "entities": 10, "boxes": 12}
    assert SUCCESS_KEY in good.store.list("")
    assert not findings(good)


def make_anew(job: StoredDataset) -> None:
    """The first commit, under another id."""
    key = annotations_key(job.plan.shards[0].shard_id)
    data, etag = job.store.get(key)
    file = read_parquet(key, data)
    job.store.replace(
        key, parquet_bytes(file.table, {**file.metadata, "commit_id": "0" * 32}), etag
    )


def test_a_commit_that_was_made_anew_in_the_source_is_not_mixed_in(
    job: StoredDataset, tmp_path: Path
) -> None:
    filtered(job, tmp_path / "good", min_score=0.5)
    make_anew(job)
    with pytest.raises(SpecError, match="since; delete"):
        filtered(job, tmp_path / "good", min_score=0.5)


def test_a_commit_that_is_made_anew_meanwhile_is_not_taken(
    job: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries = Ledger.summaries

    def at_the_wrong_time(ledger: Ledger) -> Any:
        found = summaries(ledger)
        monkeypatch.setattr(Ledger, "summaries", summaries)
        make_anew(job)
        return found

    monkeypatch.setattr(Ledger, "summaries", at_the_wrong_time)
    with pytest.raises(Conflict, match="recommitted while it was read; run the same command again"):
        filtered(job, tmp_path / "good", min_score=0.5)
    derived, good = filtered(job, tmp_path / "good", min_score=0.5)
    assert derived.is_complete
    assert not findings(good)


@pytest.fixture
def taken(job: StoredDataset, tmp_path: Path) -> Path:
    filtered(job, tmp_path / "good", min_score=0.5)
    return tmp_path / "good"


def test_another_filter_needs_another_place(job: StoredDataset, taken: Path) -> None:
    with pytest.raises(
        WrongIdentity, match=r"by filter with --min-score 0\.5, not with --min-score 0\.6"
    ):
        filtered(job, taken, min_score=0.6)


def test_something_else_is_left_alone(job: StoredDataset, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SpecError, match=r"is not empty \(letter.txt\) and holds no dataset"):
        filtered(job, tmp_path / "mine", min_score=0.5)
    with pytest.raises(SpecError, match="is both OUTPUT and DEST"):
        filtered(job, tmp_path / "out", min_score=0.5)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_the_lists_of_images_on_their_own_come_along(tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    for name, data in pictures(4):
        (folder / name).write_bytes(data)
    job = dataset_of(
        folder,
        tmp_path / "out",
        lambda sample: [ANSWERS[sample["index"]]],
        samples_per_shard=2,
    )
    _, new = filtered(job, tmp_path / "new", min_score=0.3)
    assert captions(new) == ["a cat and two dogs", "a hat"] * 2
    assert new.store.list("listings/") == job.store.list("listings/") != []
    drift = drift_from(new.store, new.record.spec, str(folder))
    assert verify_dataset(new.store, new.record, drift=drift).findings == ()


def test_a_shard_of_nothing_but_rejects_stays_one(tmp_path: Path) -> None:
    job = write_dataset(tmp_path, {"a.tar": ([("0.jpg", b"broken")], [[]])})
    everything = {"where_box": ("score > 0",), "where_entity": ("true",), "where": ("true",)}
    derived, good = filtered(job, tmp_path / "good", **everything)
    assert (derived.totals.samples, derived.totals.rejected) == (1, 1)
    assert not findings(good)
    unique = open_output(str(tmp_path / "unique"))
    dedup_dataset(good, InputStore(), unique, DedupOptions(near=3))
    assert not findings(open_dataset(unique.uri, StorageOptions()))
