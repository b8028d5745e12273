"""Every key and prefix of an output, and nothing else: what lies where.

job.json                              what was asked for, and what it came to
plan/<generation>.parquet             the frozen shards
listings/<digest>.parquet             images that are objects of their own, of shards of a list
annotations/<shard_id>.parquet        a commit
rejected/<shard_id>-<digest>.parquet  what a commit could not annotate; the commit names it
failed/<shard_id>.json                a shard's failed attempts
ledger/<number>.parquet               summaries of commits
ledger/replaced/<commit_id>           commits that count no more
leases/<i>-of-<n>.json                who is at work on a part
stop/<run_id>                         asks that run to stop
_SUCCESS.json                         all of the plan is committed
_DERIVED.json                         what a derived dataset lost
_EXPORT.json                          of an export, which is no output: what it holds
"""

import hashlib
import re

from pipeline.spec.partition import WHOLE, Partition

RECORD_KEY = "job.json"
SUCCESS_KEY = "_SUCCESS.json"
DERIVED_KEY = "_DERIVED.json"
EXPORT_KEY = "_EXPORT.json"
PLANS = "plan/"
LISTINGS = "listings/"
ANNOTATIONS = "annotations/"
REJECTS = "rejected/"
FAILURES = "failed/"
SUMMARIES = "ledger/"
REPLACED = "ledger/replaced/"
LEASES = "leases/"
_STOP = "stop/"

# What ends otherwise in these folders is none of ours.
FILE_SUFFIXES = {
    PLANS: ".parquet",
    LISTINGS: ".parquet",
    ANNOTATIONS: ".parquet",
    FAILURES: ".json",
}


def plan_key(generation: int) -> str:
    return f"{PLANS}{generation:05d}.parquet"


def listing_key(data: bytes) -> str:
    """Named by its content, so that two first runs write the same."""
    return f"{LISTINGS}{hashlib.sha256(data).hexdigest()[:16]}.parquet"


def annotations_key(shard_id: str) -> str:
    return f"{ANNOTATIONS}{shard_id}.parquet"


def rejects_key(shard_id: str, data: bytes) -> str:
    """Named by its content, so that a second try writes the same."""
    return f"{REJECTS}{shard_id}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"


def shard_of_rejects(key: str) -> str | None:
    """The shard id; None for what is no rejects file of ours."""
    match = re.fullmatch(rf"{REJECTS}(.+)-[0-9a-f]{{12}}\.parquet", key)
    return match[1] if match else None


def failure_key(shard_id: str) -> str:
    return f"{FAILURES}{shard_id}.json"


def shard_id_of(key: str) -> str | None:
    """Return the shard of a commit or a failure; None for another key."""
    for folder in (ANNOTATIONS, FAILURES):
        if key.startswith(folder) and key.endswith(FILE_SUFFIXES[folder]):
            return key.removeprefix(folder).removesuffix(FILE_SUFFIXES[folder])
    return None


def summary_key(number: int) -> str:
    return f"{SUMMARIES}{number:06d}.parquet"


def replaced_key(commit_id: str) -> str:
    """An object of that name says that the commit was replaced, or was about to be."""
    return f"{REPLACED}{commit_id}"


def lease_key(partition: Partition = WHOLE) -> str:
    return f"{LEASES}{partition.index}-of-{partition.of}.json"


def partition_of(key: str) -> Partition | None:
    """Whose lease it is; None for what is no lease of ours."""
    match = re.fullmatch(rf"{LEASES}(\d+)-of-(\d+)\.json", key, re.ASCII)
    return Partition(index=int(match[1]), of=int(match[2])) if match else None


def stop_key(run_id: str) -> str:
    return f"{_STOP}{run_id}"
