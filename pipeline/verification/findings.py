"""Defects that an output can have, and their remedies."""

from dataclasses import dataclass
from enum import StrEnum

from kosmos2_core.errors import first_line
from pipeline.errors import PipelineError


class Defect(StrEnum):
    JOB_INCONSISTENT = "job_inconsistent"  # job.json's fingerprint is not that of its identity
    PLAN_DAMAGED = "plan_damaged"
    PLAN_INCONSISTENT = "plan_inconsistent"  # a generation is missing, or a shard occurs twice
    ROUND_DAMAGED = "round_damaged"  # a record of `dedup` cannot be read, or is missing
    COMMIT_DAMAGED = "commit_damaged"  # not Parquet, cut off, or bits have flipped
    COMMIT_UNPLANNED = "commit_unplanned"  # its shard is not in the plan
    WRONG_SCHEMA = "wrong_schema"
    EMPTY_ROW_GROUP = "empty_row_group"  # written by an earlier version; `datasets` cannot load it
    # made by another job, or from another version of the input
    WRONG_PROVENANCE = "wrong_provenance"
    WRONG_COUNTS = "wrong_counts"  # the metadata do not count what the files hold
    ROWS_MISSING = "rows_missing"  # neither annotated nor rejected
    ROWS_TWICE = "rows_twice"
    ROWS_FOREIGN = "rows_foreign"  # their shard, position or task does not exist
    WRONG_OFFSETS = "wrong_offsets"  # caption[start:end] is not the phrase
    WRONG_BOX = "wrong_box"  # out of range, inverted, or not the box of its cells
    WRONG_VALUE = "wrong_value"  # any other impossible value
    WRONG_COPY = "wrong_copy"  # not the bytes of the image that its answers were computed for
    REJECTS_MISSING = "rejects_missing"
    REJECTS_DAMAGED = "rejects_damaged"
    # no shard of the plan uses it; its run died while it planned
    LISTING_ORPHANED = "listing_orphaned"
    # no commit names it; its run was killed, or its commit replaced
    REJECTS_ORPHANED = "rejects_orphaned"
    PARTIAL_FILE = "partial_file"  # left by a writer that died
    # another program's file, which readers may mistake for a part of the dataset
    STRAY_FILE = "stray_file"
    FAILURE_OUTDATED = "failure_outdated"  # the shard was committed later
    FAILURE_DAMAGED = "failure_damaged"
    LEDGER_WRONG = "ledger_wrong"  # a summary is damaged or contradicts the commits
    SUCCESS_WRONG = "success_wrong"  # _SUCCESS.json contradicts the commits
    INPUT_CHANGED = "input_changed"
    INPUT_VANISHED = "input_vanished"


_RUN_AGAIN = "then run `annotate`, or what else made the dataset, to make the shard again"
_REMAKE = f"delete the file, {_RUN_AGAIN}"
_MENDED = {
    Defect.COMMIT_DAMAGED: f"--fix deletes it; {_RUN_AGAIN}",
    Defect.EMPTY_ROW_GROUP: "--fix rewrites the file; the commit stays the same",
    Defect.LISTING_ORPHANED: "--fix deletes it",
    Defect.REJECTS_ORPHANED: "--fix deletes it",
    Defect.PARTIAL_FILE: "--fix deletes it",
    Defect.FAILURE_OUTDATED: "--fix deletes it",
    Defect.FAILURE_DAMAGED: "--fix deletes it; then the shard is retried",
    Defect.LEDGER_WRONG: "--fix rewrites the summaries",
    Defect.SUCCESS_WRONG: "--fix rewrites it, or deletes it",
}
_REMEDIES = {
    Defect.JOB_INCONSISTENT: "restore it from a backup: no run can resume without it",
    Defect.PLAN_DAMAGED: "restore it from a backup: no run can resume without it",
    Defect.PLAN_INCONSISTENT: "restore plan/ from a backup",
    Defect.ROUND_DAMAGED: "restore it from a backup, or run `dedup` into another DEST",
    Defect.COMMIT_UNPLANNED: "move it elsewhere: readers treat it as a part of the dataset",
    Defect.STRAY_FILE: "move it elsewhere",
    Defect.INPUT_CHANGED: "restore the input, or annotate the new one into another output",
    Defect.INPUT_VANISHED: "restore the input if its images are still needed",
    **_MENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A defect of an object. `rows` counts the affected rows; 0 means the object itself."""

    defect: Defect
    name: str  # relative to the output, or the URI of an input
    message: str  # about the first row, if there are several
    rows: int = 0

    @property
    def remedy(self) -> str:
        return _REMEDIES.get(self.defect, _REMAKE)

    @property
    def can_be_mended(self) -> bool:
        """Return whether `mend` fixes it; `mend` never deletes a commit that can be read."""
        return self.defect in _MENDED


def reason_of(error: PipelineError) -> str:
    """Return what was found, without the advice to verify."""
    return first_line(error.__cause__ or error)
