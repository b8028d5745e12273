"""Which tests share a process when there are several (`pytest -n 2`)."""

from xdist.scheduler import LoadScopeScheduling

END_TO_END = "tests/e2e/"
_OWN_CLUSTER = "tests/e2e/test_jobs.py"


def is_end_to_end(test: str) -> bool:
    return test.startswith(END_TO_END)


class ByModule(LoadScopeScheduling):
    """A module goes to one process, with what its fixtures made.

    So do the end-to-end tests that share a Ray cluster, and datasets annotated on it.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return END_TO_END if is_end_to_end(module) and module != _OWN_CLUSTER else module
