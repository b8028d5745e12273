"""Environment variables to set before Ray is imported."""

import os
from pathlib import Path

_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def prepare_environment() -> None:
    """Set the variables that Ray reads at its import; they have no effect afterwards.

    Only `cluster.connect` may connect to Ray: a stopped run leaves a thread that still asks for
    tables, and would start Ray again. Under `uv run`, Ray would upload the working directory,
    images included, and workers would import from it first. A local Ray listens on loopback only
    and sends no usage statistics. (The switch used for loopback has another purpose, but no
    documented one covers all of Ray's listeners.) If there is a token, clusters get it: `ray start`
    requires the one in Ray's own file without being asked to, but Ray's clients do not send it.
    """
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if "RAY_AUTH_MODE" not in os.environ and token_source() is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def token_source() -> str | None:
    """Return the variable or the file that has the token for clusters; None if there is none."""
    named = next((name for name in _TOKENS if os.environ.get(name)), None)
    if named is not None:
        return named
    try:
        own = Path.home() / ".ray" / "auth_token"
        return str(own) if own.is_file() else None
    except (OSError, RuntimeError):  # no home directory, or one that cannot be read
        return None
