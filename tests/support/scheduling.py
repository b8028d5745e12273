"""Which tests share a process when there are several (`pytest -n 2`)."""

from xdist.scheduler import LoadScopeScheduling

END_TO_END = "tests/e2e/"
# They have a cluster of their own, or none but in slow tests.
_APART = {f"{END_TO_END}{name}.py" for name in ("test_commands_of_documents", "test_jobs")}


def is_end_to_end(test: str) -> bool:
    return test.startswith(END_TO_END)


class ByModule(LoadScopeScheduling):
    """A module goes to one process, with what its fixtures made.

    So do the end-to-end tests that share a Ray cluster, and datasets annotated on it.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return END_TO_END if is_end_to_end(module) and module not in _APART else module
