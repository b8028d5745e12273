"""The error tree of the pipeline.

    PipelineError
    ├── StorageError             the store did not answer as it should; worth another try
    │   └── StorageRefused       credentials, permission or a name; the same request fails again
    ├── StorageUrlError          not a URL that we can use, or one that holds a secret
    ├── ObjectMissing            no object of that name
    │   └── InputMissing         an input is not there, or holds nothing to read
    ├── InputChanged             an input is no longer what the plan froze
    ├── InputUnreadable          an input is not what its name says, as a whole
    ├── InputTooLarge            an image of its own has more bytes than any image
    ├── OutputUnsupported        the output cannot do conditional writes
    ├── Conflict                 a conditional write lost: somebody else changed the object
    │   └── AlreadyExists        a create-only write lost: somebody else made the object
    ├── CorruptOutput            a file that we made reads back wrongly; not committed
    ├── SpecError                the job as asked for cannot be run on this output
    │   └── WrongIdentity        it would mix annotations of two models or settings
    ├── WorkerDied               a process ended while it had a sample or a shard in hand
    │   └── DecoderHung          ... or gave no answer for too long
    ├── LeaseHeld                another run is writing to the output
    ├── LeaseLost                another run took the output over
    └── Stalled                  nothing moved for too long

Each message names the object and the remedy, never a credential. `code` is what gets stored and
counted; `retriable` says whether the same call may succeed later without anybody's help.
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
    code = "storage_error"
    retriable = True


class StorageRefused(StorageError):
    code = "storage_refused"
    retriable = False


class StorageUrlError(PipelineError):
    code = "storage_url"


class ObjectMissing(PipelineError):
    code = "object_missing"


class InputMissing(ObjectMissing):
    code = "input_missing"


class InputChanged(PipelineError):
    code = "input_changed"


class InputUnreadable(PipelineError):
    code = "input_unreadable"


class InputTooLarge(PipelineError):
    code = "input_too_large"


class OutputUnsupported(PipelineError):
    code = "output_unsupported"


class Conflict(PipelineError):
    code = "conflict"
    retriable = True


class AlreadyExists(Conflict):
    code = "already_exists"


class CorruptOutput(PipelineError):
    code = "corrupt_output"


class SpecError(PipelineError):
    """Raised when a job cannot run on this output as requested. Correct what the message names."""

    code = "spec_error"


class WrongIdentity(SpecError):
    code = "wrong_identity"


class WorkerDied(PipelineError):
    code = "worker_died"
    retriable = True


class DecoderHung(WorkerDied):
    """A decoder that hangs. It has the code `worker_died`: for counting, it is a dead process."""


class LeaseHeld(PipelineError):
    code = "lease_held"


class LeaseLost(PipelineError):
    code = "lease_lost"


class Stalled(PipelineError):
    code = "stalled"


class ShardsFailed(PipelineError):
    """Raised by `Verdict.raise_for_failures` when shards failed. Resolve the reasons and retry."""

    code = "shards_failed"
    retriable = True


class PassBroke(Exception):
    """Where tables come from, something gave way; what is committed stays, and another pass may
    get the rest. For the driver alone: no user sees it."""

    def __init__(self, message: str, *, is_actor_dead: bool = False) -> None:
        super().__init__(message)
        self.is_actor_dead = is_actor_dead


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its class where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
