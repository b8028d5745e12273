"""How a run ends, for shells and schedulers."""

from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0  # every planned shard is committed
    ERROR = 1
    USAGE = 2
    SHARDS_FAILED = 3
    HELD = 4  # another run is at work on the output
    STALLED = 5
    DEFECTS = 6  # `verify` found something wrong that it did not mend
    STOPPED = 7  # on request: `kosmos2 stop`, SIGTERM, Ctrl-C; the same command goes on
    CLOSED_PIPE = 141  # 128 + SIGPIPE: the reader of the standard output ended, as `head` does
