"""Defects that an output can have, and their remedies."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import CorruptOutput, ObjectMissing, first_line


class Defect(StrEnum):
    JOB_INCONSISTENT = "job_inconsistent"  # job.json's fingerprint is not that of its identity
    PLAN_DAMAGED = "plan_damaged"
    PLAN_INCONSISTENT = "plan_inconsistent"  # a generation is missing, or a shard is there twice
    COMMIT_DAMAGED = "commit_damaged"  # no Parquet, cut off, or bits have flipped
    COMMIT_UNPLANNED = "commit_unplanned"  # of a shard that the plan does not have
    WRONG_SCHEMA = "wrong_schema"
    EMPTY_ROW_GROUP = "empty_row_group"  # of an earlier version: `datasets` cannot load it
    WRONG_PROVENANCE = "wrong_provenance"  # another job's, or of another version of the input
    WRONG_COUNTS = "wrong_counts"  # the metadata do not count what the files hold
    ROWS_MISSING = "rows_missing"  # neither annotated nor rejected
    ROWS_TWICE = "rows_twice"
    ROWS_FOREIGN = "rows_foreign"  # of no such shard, position or task
    WRONG_OFFSETS = "wrong_offsets"  # caption[start:end] is not the phrase
    WRONG_BOX = "wrong_box"  # out of range, inverted, or not that of its cells
    WRONG_VALUE = "wrong_value"  # anything else that no annotation can say
    REJECTS_MISSING = "rejects_missing"
    REJECTS_DAMAGED = "rejects_damaged"
    LISTING_ORPHANED = "listing_orphaned"  # no shard of the plan is of it: its run died planning
    REJECTS_ORPHANED = "rejects_orphaned"  # named by no commit: of a killed run, or replaced
    PARTIAL_FILE = "partial_file"  # of a writer that died
    STRAY_FILE = "stray_file"  # not of ours, where readers may take it for ours
    FAILURE_OUTDATED = "failure_outdated"  # the shard was committed later
    FAILURE_DAMAGED = "failure_damaged"
    LEDGER_WRONG = "ledger_wrong"  # a summary is damaged or says what no commit says
    SUCCESS_WRONG = "success_wrong"  # _SUCCESS.json does not say what is there
    INPUT_CHANGED = "input_changed"
    INPUT_VANISHED = "input_vanished"


_REMAKE = "delete the file: `annotate` then makes the shard anew"
_MENDED = {
    Defect.COMMIT_DAMAGED: "--fix deletes it: `annotate` then makes the shard anew",
    Defect.EMPTY_ROW_GROUP: "--fix writes the file anew; the commit stays what it is",
    Defect.LISTING_ORPHANED: "--fix deletes it",
    Defect.REJECTS_ORPHANED: "--fix deletes it",
    Defect.PARTIAL_FILE: "--fix deletes it",
    Defect.FAILURE_OUTDATED: "--fix deletes it",
    Defect.FAILURE_DAMAGED: "--fix deletes it: the shard is tried again",
    Defect.LEDGER_WRONG: "--fix makes the summaries anew",
    Defect.SUCCESS_WRONG: "--fix writes it anew, or deletes it",
}
_REMEDIES = {
    Defect.JOB_INCONSISTENT: "restore it from a copy: without it no run goes on",
    Defect.PLAN_DAMAGED: "restore it from a copy: without it no run goes on",
    Defect.PLAN_INCONSISTENT: "restore plan/ from a copy",
    Defect.COMMIT_UNPLANNED: "move it elsewhere: readers take it for a part of the dataset",
    Defect.STRAY_FILE: "move it elsewhere",
    Defect.INPUT_CHANGED: "restore the input, or annotate the new one into another output",
    Defect.INPUT_VANISHED: "restore the input, if anybody is to look at its images again",
    **_MENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One defect of one object. `rows` counts what is concerned in it; 0: the object itself."""

    defect: Defect
    name: str  # relative to the output, or the URI of an input
    message: str  # of the first row, where there are several
    rows: int = 0

    @property
    def remedy(self) -> str:
        return _REMEDIES.get(self.defect, _REMAKE)

    @property
    def can_be_mended(self) -> bool:
        """Return whether `mend` does it, which never deletes a commit that can be read."""
        return self.defect in _MENDED


def reason_of(error: CorruptOutput | ObjectMissing) -> str:
    """Return what was found, without the advice to verify."""
    return first_line(error.__cause__ or error)
