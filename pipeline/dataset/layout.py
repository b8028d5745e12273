"""The keys and prefixes of an output.

job.json                              the requested job, with all settings resolved
plan/<generation>.parquet             the frozen shards
listings/<digest>.parquet             lists of single-image objects, for shards of a list
annotations/<shard_id>.parquet        a commit
rejected/<shard_id>-<digest>.parquet  the rejected samples of a commit, which names this file
failed/<shard_id>.json                a shard's failed attempts
ledger/<number>.parquet               summaries of commits
ledger/replaced/<commit_id>           commits that no longer count
leases/<i>-of-<n>.json                which run is writing a partition
actor_time/<run_id>.json              time of a run's actors that no commit stands for
stop/<run_id>                         a request to stop that run
publications/<commit>.json            an export of it at a commit of the hub
reviews/<digest>.json                 judgements of people about its boxes
rounds/<number>.parquet               the shards that `dedup` compared together
looks/<shard_id>.parquet              perceptual hashes of a shard's images, for `dedup`
_SUCCESS.json                         every planned shard is committed
_DERIVED.json                         what a derived dataset left out
_EXPORT.json                          what an export holds (an export is not an output)
_EXPORT_SHARDS                        the commits and the files of its shards
"""

import hashlib
import re

from pipeline.spec.partition import WHOLE, Partition

RECORD_KEY = "job.json"
SUCCESS_KEY = "_SUCCESS.json"
DERIVED_KEY = "_DERIVED.json"
EXPORT_KEY = "_EXPORT.json"
EXPORT_SHARDS_KEY = "_EXPORT_SHARDS"  # Parquet, but not among the *.parquet of an export
PLANS = "plan/"
LISTINGS = "listings/"
ANNOTATIONS = "annotations/"
REJECTS = "rejected/"
FAILURES = "failed/"
SUMMARIES = "ledger/"
REPLACED = "ledger/replaced/"
LEASES = "leases/"
PUBLICATIONS = "publications/"
REVIEWS = "reviews/"
DEDUP_ROUNDS = "rounds/"
LOOKS = "looks/"
ACTOR_TIMES = "actor_time/"
_STOP = "stop/"

# Files with other suffixes in these folders were not written by this program.
FILE_SUFFIXES = {
    PLANS: ".parquet",
    LISTINGS: ".parquet",
    ANNOTATIONS: ".parquet",
    FAILURES: ".json",
    DEDUP_ROUNDS: ".parquet",
    LOOKS: ".parquet",
}


def plan_key(generation: int) -> str:
    return f"{PLANS}{generation:05d}.parquet"


def listing_key(data: bytes) -> str:
    """Return the key of a listing.

    It depends on the content, so two first runs write the same object.
    """
    return f"{LISTINGS}{hashlib.sha256(data).hexdigest()[:16]}.parquet"


def annotations_key(shard_id: str) -> str:
    return f"{ANNOTATIONS}{shard_id}.parquet"


def rejects_key(shard_id: str, data: bytes) -> str:
    """Return the key of a rejects file.

    It depends on the content, so a retry writes the same object.
    """
    return f"{REJECTS}{shard_id}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"


def shard_of_rejects(key: str) -> str | None:
    """Return the shard id of a rejects file; None for another key."""
    match = re.fullmatch(rf"{REJECTS}(.+)-[0-9a-f]{{12}}\.parquet", key)
    return match[1] if match else None


def failure_key(shard_id: str) -> str:
    return f"{FAILURES}{shard_id}.json"


def shard_id_of(key: str) -> str | None:
    """Return the shard id of a commit or a failure; None for another key."""
    for folder in (ANNOTATIONS, FAILURES):
        if key.startswith(folder) and key.endswith(FILE_SUFFIXES[folder]):
            return key.removeprefix(folder).removesuffix(FILE_SUFFIXES[folder])
    return None


def summary_key(number: int) -> str:
    return f"{SUMMARIES}{number:06d}.parquet"


def replaced_key(commit_id: str) -> str:
    """Return the key of the marker that says that a commit was replaced, or was about to be."""
    return f"{REPLACED}{commit_id}"


def lease_key(partition: Partition = WHOLE) -> str:
    return f"{LEASES}{partition.index}-of-{partition.of}.json"


def partition_of(key: str) -> Partition | None:
    """Return the partition of a lease; None for another key."""
    match = re.fullmatch(rf"{LEASES}(\d+)-of-(\d+)\.json", key, re.ASCII)
    return Partition(index=int(match[1]), of=int(match[2])) if match else None


def actor_time_key(run_id: str) -> str:
    return f"{ACTOR_TIMES}{run_id}.json"


def stop_key(run_id: str) -> str:
    return f"{_STOP}{run_id}"


def publication_key(commit: str) -> str:
    """Return the key of the note that an export was published as this commit of the hub."""
    return f"{PUBLICATIONS}{commit}.json"


def review_key(data: bytes) -> str:
    """Return the key of judgements. It depends on the content, so an import counts once."""
    return f"{REVIEWS}{hashlib.sha256(data).hexdigest()[:16]}.json"


def round_key(number: int) -> str:
    return f"{DEDUP_ROUNDS}{number:05d}.parquet"


def looks_key(shard_id: str) -> str:
    return f"{LOOKS}{shard_id}.parquet"
