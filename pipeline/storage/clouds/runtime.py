"""The threads of obstore, which belong to one process."""

import os

_used_in: set[int] = set()


def enter_runtime() -> bool:
    """Return whether this process may use obstore: a fork has none of its parent's threads.

    A request there would wait for ever.
    """
    # obstore starts a thread for each core, in each of many readers. Two carry 1 GB/s.
    os.environ.setdefault("TOKIO_WORKER_THREADS", "2")
    _used_in.add(os.getpid())
    return len(_used_in) == 1
