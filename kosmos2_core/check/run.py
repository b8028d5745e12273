"""Run the blocks in order, each within its part of the time, and report after each."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from kosmos2_core.check.blocks.attention import check_attention
from kosmos2_core.check.blocks.memory import check_memory
from kosmos2_core.check.blocks.place import PACKAGES, check_place
from kosmos2_core.check.blocks.precision import check_precision
from kosmos2_core.check.blocks.profile import check_profile
from kosmos2_core.check.blocks.throughput import check_throughput
from kosmos2_core.check.blocks.tokens import check_tokens
from kosmos2_core.check.blocks.variants import check_variants
from kosmos2_core.check.blocks.waits import check_waits
from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import RANDOM, CheckContext, name_of
from kosmos2_core.check.extent import EXTENTS, Extent
from kosmos2_core.check.report import BlockResult, BlockSkipped, BlockStatus, CheckReport, Figures
from kosmos2_core.check.verdict import conclude
from kosmos2_core.checkpoint.files import CheckpointFiles
from kosmos2_core.checkpoint.load import device_named
from kosmos2_core.comparison.machine import one_torch_thread, versions
from kosmos2_core.errors import CheckpointError

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """Options of the check. `minutes`: limit for all blocks. `output`: file for the results.

    `model` is `random`, or what `load_checkpoint` takes.
    """

    model: str | CheckpointFiles = RANDOM
    device: str = "auto"
    minutes: float = 8.0
    output: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckBlock:
    """`share` of the time that is left, among the blocks that are left; `needs_s` at least."""

    name: str
    measure: Callable[[CheckContext, Deadline], Figures]
    share: float
    needs_s: float


BLOCKS = (
    CheckBlock(name="machine", measure=check_place, share=1, needs_s=0),
    CheckBlock(name="attention kernels", measure=check_attention, share=20, needs_s=3),
    CheckBlock(name="tokens", measure=check_tokens, share=60, needs_s=5),
    CheckBlock(name="variants", measure=check_variants, share=30, needs_s=5),
    CheckBlock(name="half precision", measure=check_precision, share=30, needs_s=5),
    CheckBlock(name="waits", measure=check_waits, share=20, needs_s=0),
    CheckBlock(name="memory", measure=check_memory, share=40, needs_s=5),
    CheckBlock(name="throughput", measure=check_throughput, share=180, needs_s=10),
    CheckBlock(name="profile", measure=check_profile, share=40, needs_s=5),
)


def run_check(
    options: CheckOptions,
    show: Show,
    *,
    extent: Extent | None = None,
    blocks: Sequence[CheckBlock] | None = None,
) -> CheckReport:
    """Check the engine on a device.

    Args:
        options: Model, device, limit of time, file.
        show: Gets each line of results as it is known.
        extent: Sizes of the measurements; None takes those of the device.
        blocks: The blocks to run, in this order; None runs `BLOCKS`.

    Returns:
        The report of all blocks.

    Raises:
        CheckpointError: The model or the device cannot be used.
        OSError: `options.output` cannot be written.
    """
    device = device_named(options.device)
    if device.type not in EXTENTS:
        raise CheckpointError(
            f"device {options.device!r} cannot be checked; use cpu, cuda or cuda:N"
        )
    end = Deadline(at_s=time.monotonic() + 60 * options.minutes)
    report = CheckReport(
        model=name_of(options.model),
        device=str(device),
        minutes=options.minutes,
        versions=versions(*PACKAGES),
    )
    _save(report, options)
    # On a CPU an actor computes in one thread: Ray tells it to.
    with one_torch_thread() if device.type == "cpu" else nullcontext():
        context = CheckContext.on(
            options.device, model=options.model, extent=extent or EXTENTS[device.type], show=show
        )
        _run_blocks(context, options, report, end, BLOCKS if blocks is None else blocks)
    report.is_complete = True
    conclude(report)
    for sentence in report.verdict:
        show(f"verdict: {sentence}")
    _save(report, options)
    return report


def _run_blocks(
    context: CheckContext,
    options: CheckOptions,
    report: CheckReport,
    end: Deadline,
    blocks: Sequence[CheckBlock],
) -> None:
    for number, block in enumerate(blocks):
        share = block.share / sum(each.share for each in blocks[number:])
        result = _result(block, context, end, share)
        report.results.append(result)
        for line in result.lines():
            context.show(line)
        _save(report, options)
        context.free()


def _save(report: CheckReport, options: CheckOptions) -> None:
    if options.output is not None:
        report.save(options.output)


def _result(block: CheckBlock, context: CheckContext, end: Deadline, share: float) -> BlockResult:
    begun, reason = time.monotonic(), ""
    figures: Figures | None = None
    try:
        if end.left_s < block.needs_s:
            raise BlockSkipped(
                f"it needs about {block.needs_s:.0f} s and {end.left_s:.0f} s are left; "
                "use --minutes for more"
            )
        figures = block.measure(context, end.part(share=share, needs_s=block.needs_s))
        status: BlockStatus = "failed" if figures.problems else "passed"
    except BlockSkipped as skipped:
        status, reason = "skipped", str(skipped)
    # A boundary: whatever one block meets on a new machine, the others still run.
    except Exception as error:  # noqa: BLE001
        status, reason = "failed", _reason(error)
    return BlockResult(
        name=block.name,
        status=status,
        seconds=time.monotonic() - begun,
        figures=figures,
        reason=reason,
    )


def _reason(error: Exception) -> str:
    """Return the error, and the lines of ours that led there."""
    remedy = ""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        remedy = "; end what else uses the GPU, or check with a smaller --model"
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}{remedy} ({_place(error)})"


def _place(error: Exception) -> str:
    trace, place = error.__traceback__, "no place known"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "kosmos2_core" in file:
            place = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"at {place}"
