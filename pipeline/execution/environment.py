"""Environment variables to set before Ray is imported."""

import os


def prepare_environment() -> None:
    """Set the variables that Ray reads at its import; they have no effect afterwards.

    Only `cluster.connect` may connect to Ray: a stopped run leaves a thread that still asks for
    tables, and would start Ray again. Under `uv run`, Ray would upload the working directory,
    images included, and workers would import from it first. A local Ray listens on loopback only
    and sends no usage statistics. (The switch used for loopback has another purpose, but no
    documented one covers all of Ray's listeners.)
    """
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
