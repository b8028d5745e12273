"""The error tree of the pipeline.

    PipelineError
    ├── StorageError             the store gave no valid answer; a retry may succeed
    │   └── StorageRefused       wrong credentials, permissions or names; a retry fails again
    ├── StorageUrlError          a URL that cannot be used, or that holds a secret
    ├── ObjectMissing            no object of that name
    │   └── InputMissing         an input does not exist, or holds nothing to read
    ├── InputChanged             an input differs from what the plan froze
    ├── InputUnreadable          an input as a whole does not have the format of its name
    ├── InputTooLarge            a single-image object exceeds the size limit
    ├── OutputUnsupported        the output cannot do conditional writes
    ├── Conflict                 a conditional write lost: another writer changed the object
    │   └── AlreadyExists        a create-only write lost: another writer made the object
    ├── CorruptOutput            a file of the output cannot be read back correctly
    ├── SpecError                the job cannot run on this output as requested
    │   └── WrongIdentity        it would mix annotations of two models or settings
    ├── WorkerDied               a process ended while it processed a sample or a shard
    │   └── DecoderHung          a decoder gave no answer in time
    ├── LeaseHeld                another run is writing to the output
    ├── LeaseLost                another run took the output over
    ├── Stalled                  the job made no progress for too long
    └── ShardsFailed             a job ended with failed shards

Each message names the object and the remedy, never a credential. `code` is stored and counted.
`retriable` says whether the same call may succeed later without a change.
"""

from typing import ClassVar


class PipelineError(Exception):
    """Base class of all errors that `pipeline` raises on purpose.

    Catch the subclass that the caller can act on; the message says what failed and what to do.

    Attributes:
        code: Name of the reason, as it is stored and counted.
        retriable: Whether the same call may succeed later without a change.
    """

    code: ClassVar[str] = "pipeline_error"
    retriable: ClassVar[bool] = False


class StorageError(PipelineError):
    """Raised when the store gives no valid answer. Run the same command again later."""

    code = "storage_error"
    retriable = True


class StorageRefused(StorageError):
    """Raised when the store refuses a request. Correct credentials, permissions or names."""

    code = "storage_refused"
    retriable = False


class StorageUrlError(PipelineError):
    """Raised for a URL that cannot be used. Correct it, and move any secret out of it."""

    code = "storage_url"


class ObjectMissing(PipelineError):
    """Raised when an object does not exist. Check its URL."""

    code = "object_missing"


class InputMissing(ObjectMissing):
    """Raised when an input does not exist or holds nothing to read. Check its URL."""

    code = "input_missing"


class InputChanged(PipelineError):
    """Raised when an input differs from what the plan froze. Restore it, or use a new output."""

    code = "input_changed"


class InputUnreadable(PipelineError):
    """Raised when an input does not have the format of its name. Replace it or leave it out."""

    code = "input_unreadable"


class InputTooLarge(PipelineError):
    """Raised when a single-image object exceeds the size limit. Replace it or leave it out."""

    code = "input_too_large"


class OutputUnsupported(PipelineError):
    """Raised when the output cannot do conditional writes. Use a store that can."""

    code = "output_unsupported"


class Conflict(PipelineError):
    """Raised when another writer changed the object first. Read it again, then retry."""

    code = "conflict"
    retriable = True


class AlreadyExists(Conflict):
    """Raised when another writer created the object first. Use that object, or another name."""

    code = "already_exists"


class CorruptOutput(PipelineError):
    """Raised when a file of the output cannot be read back. Run `kosmos2 verify`."""

    code = "corrupt_output"


class SpecError(PipelineError):
    """Raised when a job cannot run on this output as requested. Correct what the message names."""

    code = "spec_error"


class WrongIdentity(SpecError):
    """Raised when a run would mix models or settings in one output. Use another output."""

    code = "wrong_identity"


class WorkerDied(PipelineError):
    """Raised when a process ended while it processed a sample or a shard. Retry the shard."""

    code = "worker_died"
    retriable = True


class DecoderHung(WorkerDied):
    """Raised when a decoder gives no answer in time. Replace the image.

    Its code is `worker_died`: it is counted as a dead process.
    """


class LeaseHeld(PipelineError):
    """Raised when another run is writing to the output. Wait for that run, or stop it."""

    code = "lease_held"


class LeaseLost(PipelineError):
    """Raised when another run took the output over. Let that run finish."""

    code = "lease_lost"


class Stalled(PipelineError):
    """Raised when a job makes no progress for too long. Resolve the named cause and resume."""

    code = "stalled"


class ShardsFailed(PipelineError):
    """Raised by `Verdict.raise_for_failures` when shards failed. Resolve the reasons and retry."""

    code = "shards_failed"
    retriable = True


class PassBroke(Exception):
    """Raised when a source of tables fails. Commits stay, and the next pass retries the rest.

    The driver catches it; no user sees it.
    """
