"""Mending what `verify` found: deletes what nobody needs, makes anew what loses nothing by it."""

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
    """Mend what can be mended; return what is left. The caller has to be alone on the output.

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
            # With the same rows and metadata, so it is the same commit.
            data, etag = store.get(finding.name)
            file = read_parquet(finding.name, data)
            store.replace(finding.name, parquet_bytes(file.table, file.metadata), etag)
        case Defect.SUCCESS_WRONG if report.is_complete:
            write_success(store, record, report.totals)
        case Defect.SUCCESS_WRONG:
            store.delete(SUCCESS_KEY)
        case Defect.LEDGER_WRONG:
            pass  # made anew as a whole
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
