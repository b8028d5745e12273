"""Exit codes of a run, for shells and schedulers."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command, and `Verdict.exit_code` of a run from Python."""

    DONE = 0  # every planned shard is committed
    ERROR = 1  # an error of the job as a whole; the message says what to do
    USAGE = 2  # wrong options
    SHARDS_FAILED = 3  # some shards are not committed
    HELD = 4  # another run is writing to the output
    STALLED = 5  # no progress for too long
    DEFECTS = 6  # `verify` found defects that it did not repair, `diff` more than --fail-above
    STOPPED = 7  # by `stop`, SIGTERM, Ctrl-C or a limit of the budget; the same command resumes
    CLOSED_PIPE = 141  # 128 + SIGPIPE: the reader of the standard output ended, such as `head`
