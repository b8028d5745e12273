"""The verdict: the meaning of the results, in plain words, and the options that follow."""

from collections.abc import Iterator

from kosmos2_core.check.blocks.memory import MemoryFigures
from kosmos2_core.check.blocks.profile import ProfileFigures
from kosmos2_core.check.blocks.throughput import ThroughputFigures
from kosmos2_core.check.report import CheckReport

_IDLE = 0.3  # of a GPU's time, from which on a second actor pays


def conclude(report: CheckReport) -> None:
    """Set verdict and options of a report from its results."""
    report.options = dict(_options(report))
    report.verdict = tuple(_sentences(report))


def _options(report: CheckReport) -> Iterator[tuple[str, int | float]]:
    throughput = report.figures_of("throughput")
    if isinstance(throughput, ThroughputFigures) and throughput.best_slots is not None:
        yield "--slots", throughput.best_slots
    if report.device.startswith("cuda"):
        yield "--gpus-per-actor", 0.5 if _has_room_for_two(report) else 1


def _has_room_for_two(report: CheckReport) -> bool:
    profile, memory = report.figures_of("profile"), report.figures_of("memory")
    if not (isinstance(profile, ProfileFigures) and isinstance(memory, MemoryFigures)):
        return False
    return profile.idle_share > _IDLE and memory.left > memory.taken


def _sentences(report: CheckReport) -> Iterator[str]:
    failed = [each.name for each in report.results if each.status == "failed"]
    passed = [each.name for each in report.results if each.status == "passed"]
    skipped = [each.name for each in report.results if each.status == "skipped"]
    if failed:
        yield (
            f"Do not annotate on this machine yet: {', '.join(failed)} failed. Report it with the "
            "results (--output FILE) and the versions"
        )
    elif "tokens" in passed:
        yield "The engine generates the tokens that Hugging Face generates on this machine"
    else:
        yield "Nothing is wrong, but tokens were not compared: give more --minutes"
    if skipped:
        yield f"Not measured: {', '.join(skipped)}"
    if report.options:
        flags = " ".join(f"{name} {value}" for name, value in report.options.items())
        yield f"Set {flags}"
