"""Fixes of what `verify` found: delete what is not needed, rewrite what loses nothing."""

from dataclasses import replace

from pipeline.dataset.dataset import write_success
from pipeline.dataset.layout import SUCCESS_KEY
from pipeline.dataset.ledger import Ledger
from pipeline.errors import CorruptOutput, ObjectMissing
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore
from pipeline.verification.findings import Defect, Finding
from pipeline.verification.outputs import Report


def mend(store: OutputStore, record: JobRecord, report: Report) -> Report:
    """Fix what can be fixed; return what is left. No other run may write to the output meanwhile.

    A commit is deleted only if it still cannot be read.
    """
    mended = [finding for finding in report.findings if _mend(store, record, report, finding)]
    Ledger(store).rebuild(report.commits)
    left = tuple(finding for finding in report.findings if finding not in mended)
    return replace(report, findings=left, mended=tuple(mended))


def _mend(store: OutputStore, record: JobRecord, report: Report, finding: Finding) -> bool:
    match finding.defect:
        case Defect.COMMIT_DAMAGED:
            return _delete_unreadable(store, finding.name)
        case Defect.EMPTY_ROW_GROUP:
            # The rows and the metadata stay the same, so the commit does too.
            data, etag = store.get(finding.name)
            file = read_parquet(finding.name, data)
            store.replace(finding.name, parquet_bytes(file.table, file.metadata), etag)
        case Defect.SUCCESS_WRONG if report.is_complete:
            write_success(store, record, report.totals)
        case Defect.SUCCESS_WRONG:
            store.delete(SUCCESS_KEY)
        case Defect.LEDGER_WRONG:
            pass  # rewritten as a whole
        case _ if finding.can_be_mended:
            store.delete(finding.name)
        case _:
            return False
    return True


def _delete_unreadable(store: OutputStore, key: str) -> bool:
    try:
        data, etag = store.get(key)
        read_parquet(key, data)
    except ObjectMissing:
        return True
    except CorruptOutput:
        store.delete(key, etag)
        return True
    return False
