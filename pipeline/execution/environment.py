"""What Ray is told before it is imported."""

import os


def prepare_environment() -> None:
    """Set what Ray reads at its import; of no effect once it is imported.

    Nobody connects to Ray but `cluster.connect`: a run that is stopped leaves a thread behind that
    still asks for tables, and would bring Ray up again. Started by `uv run`, Ray would upload the
    working directory, images and all, and make workers import from it before they import from us.
    A Ray that we start ourselves listens on loopback only (the switch has another purpose, but no
    documented one binds all of Ray's listeners) and sends no usage statistics.
    """
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
