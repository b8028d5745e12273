"""The `kosmos2` command line."""

import sys
from pathlib import Path

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m jobs.cli` looks for every module in the working directory first. That may hold
    # a `pipeline.py` of the user's, so our own folder takes its place.
    sys.path[0] = str(Path(__file__).parents[1])
