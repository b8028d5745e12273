"""Which tests share a process when there are several (`pytest -n 2`)."""

from xdist.scheduler import LoadScopeScheduling

END_TO_END = "tests/e2e/"


def is_end_to_end(test: str) -> bool:
    return test.startswith(END_TO_END)


class ByModule(LoadScopeScheduling):
    """A module goes to one process, with what its fixtures made.

    All end-to-end tests go to one, too: they share a Ray cluster, and datasets annotated on it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return END_TO_END if is_end_to_end(nodeid) else nodeid.partition("::")[0]
