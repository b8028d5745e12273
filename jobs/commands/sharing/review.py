"""`kosmos2 review`: what people said about boxes, and the precisions that follow."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column

from jobs.options.groups import AsJson, DatasetArgument, with_flags
from jobs.options.places import check_file
from jobs.terminal import DataTable, print_json, print_message, print_results
from pipeline.dataset.dataset import open_dataset
from pipeline.exit_codes import ExitCode
from pipeline.review.answers import ReviewAnswers, read_answers
from pipeline.review.judgements import curve_of, keep_review, people_boxes
from pipeline.review.precision import Precision, precision_report
from pipeline.spec.access import OutputAccess
from pipeline.storage import OutputStore

_Answers = Annotated[Path, Parameter(help="Answers, as Label Studio exports them: format JSON.")]
_FEW = 100


@with_flags
def import_command(
    output: DatasetArgument,
    answers: _Answers,
    /,
    *,
    json: AsJson = False,
    access: OutputAccess,
) -> int:
    """Read the ANSWERS of people about boxes of the dataset OUTPUT, and keep them in it.

    A box that was left is right, and one that was moved, if it overlaps the new one by half (IoU).
    A box that was deleted or labelled wrong, or whose phrase was corrected, is wrong. The same file
    again counts once. If several people judged a box, the share of them counts.

    ```
    kosmos2 review import s3://bucket/out/ answers.json
    ```
    """
    check_file(answers)
    dataset = open_dataset(output, access.output_storage)
    found = read_answers(answers, dataset.record.fingerprint)
    is_new = keep_review(dataset.store, found.review)
    print_message(_account(found) if is_new else f"{answers} was imported before; it counts once")
    _report(dataset.store, as_json=json)
    return ExitCode.DONE


@with_flags
def review_report_command(
    output: DatasetArgument,
    /,
    *,
    json: AsJson = False,
    access: OutputAccess,
) -> int:
    """Show the precision of the boxes of the dataset OUTPUT, by the judgements that it has.

    Intervals are Wilson's, of 95 %. They take boxes as independent, also those of one image.

    ```
    kosmos2 review report s3://bucket/out/ --json
    ```
    """
    _report(open_dataset(output, access.output_storage).store, as_json=json)
    return ExitCode.DONE


def _account(answers: ReviewAnswers) -> str:
    verdicts = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in answers.verdicts.most_common()
    )
    said = f"{len(answers.review.judgements)} judgements: {verdicts}"
    if answers.unanswered:
        said += f"; {answers.unanswered} of {answers.tasks} tasks have no answer"
    if answers.added_boxes:
        said += f"; {answers.added_boxes} boxes that people added are left out"
    return said


def _report(store: OutputStore, *, as_json: bool) -> None:
    curve = curve_of(store)
    boxes = people_boxes(store)
    report = precision_report(boxes)
    if as_json:
        points = {"scores": curve.scores, "precisions": curve.precisions}
        print_json({**asdict(report), "calibration": points})
        return
    table = DataTable("", Column("judged", justify="right"), "precision", "95 %")
    groups: Sequence[tuple[str, list[Precision]]] = (
        ("", [report.whole]),
        ("task ", report.by_task),
        ("score ", report.by_score),
        ("class ", report.by_class),
    )
    for name, precisions in groups:
        for each in precisions:
            interval = f"{each.low:.3f} to {each.high:.3f}"
            table.add_row(f"{name}{each.group}", f"{each.boxes:,}", f"{each.value:.3f}", interval)
    print_results(table)
    if report.judged_twice:
        print_results(
            f"{report.judged_twice} boxes have answers of several people, who agreed on "
            f"{report.agreed}; of the others, the share of people counts"
        )
    if len(boxes) < _FEW:
        print_results(f"{len(boxes)} boxes are few: the intervals say how much is known")
