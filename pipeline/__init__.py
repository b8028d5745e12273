"""A job over many shards, on Ray Data: plan, read, annotate, commit, resume."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.version import our_version

    return our_version()
