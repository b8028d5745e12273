"""`python -m kosmos2_core.check`: `kosmos2 check` where only the core is installed."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from kosmos2_core.check.run import CheckOptions, run_check
from kosmos2_core.errors import KosmosError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and return its exit code: 0, 1 if something is wrong, 2 for wrong usage."""
    given = _parser().parse_args(arguments)
    options = CheckOptions(
        model=given.model, device=given.device, minutes=given.minutes, output=given.output
    )
    disable_progress_bar()
    stream = sys.stderr if given.json else sys.stdout
    try:
        report = run_check(options, lambda line: print(line, file=stream, flush=True))
    except KosmosError as error:
        print(f"kosmos2_core.check: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"kosmos2_core.check: {error.filename}: {error.strerror}; name another file for "
            "--output",
            file=sys.stderr,
        )
        return 2
    if given.json:
        print(json.dumps(report.body(), indent=2))
    return 0 if report.is_right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kosmos2_core.check",
        description="Check the engine on this machine, and say which options to set.",
    )
    default = CheckOptions()
    parser.add_argument(
        "--model", default=default.model, help="a Hub id, a directory, `shapes` or `random`"
    )
    parser.add_argument("--device", default=default.device, help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--minutes", type=float, default=default.minutes, help="limit of time for all blocks"
    )
    parser.add_argument(
        "--output", type=Path, help="file that has the results of each block as soon as it ends"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on the standard output"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
