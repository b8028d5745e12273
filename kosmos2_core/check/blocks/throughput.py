"""Images per second over the number of slots, beside Hugging Face's `generate`."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kosmos2_core.check.blocks.steady import steady_completions
from kosmos2_core.check.budget import Clock, Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import Figures
from kosmos2_core.comparison.sides import generate_answers
from kosmos2_core.comparison.workload import Workload
from kosmos2_core.errors import EngineOutOfMemory, NotEnoughMemory
from kosmos2_core.generation import Generation

_IMAGES = 64  # at least, which come again and again
_SHORTEST_S = 0.5  # in which a pace can be told
_ENOUGH = 0.97  # of the best pace; more slots only take memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Images and tokens per second, of `slots` of the engine or a batch of Hugging Face's."""

    task: str
    size: int
    is_ours: bool
    cuda_graph: bool
    images_per_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputFigures(Figures):
    """Every pace that was measured. On a CPU the seconds are those of its time, on one thread."""

    paces: tuple[Pace, ...]

    def lines(self) -> Iterator[str]:
        for each in self.paces:
            side = f"{each.size} slots" if each.is_ours else f"Hugging Face, batch {each.size}"
            graph = " with CUDA graphs" if each.cuda_graph else ""
            yield (
                f"{each.task}, {side}{graph}: {each.images_per_s:.1f} images/s, "
                f"{each.tokens_per_s:.0f} tokens/s"
            )
        for task in dict.fromkeys(each.task for each in self.paces):
            if ratio := self._ratio(task):
                yield f"{task}: {ratio:.1f} times as fast as Hugging Face's best"

    def _ratio(self, task: str) -> float | None:
        ours, theirs = (
            [p.images_per_s for p in self.paces if p.task == task and p.is_ours is is_ours]
            for is_ours in (True, False)
        )
        return max(ours) / max(theirs) if ours and theirs else None

    @property
    def best_slots(self) -> int | None:
        """The fewest slots that are about as fast as any, for a task of each kind per image."""
        seconds: dict[int, dict[str, float]] = {}
        for each in self.paces:
            if each.is_ours and each.images_per_s:
                of_size = seconds.setdefault(each.size, {})
                took = 1 / each.images_per_s
                of_size[each.task] = min(of_size.get(each.task, took), took)
        tasks = {each.task for each in self.paces if each.is_ours}
        sums = {size: sum(took.values()) for size, took in seconds.items() if took.keys() == tasks}
        if not sums:
            return None
        return min(size for size, took in sums.items() if took <= min(sums.values()) / _ENOUGH)


def check_throughput(context: CheckContext, deadline: Deadline) -> ThroughputFigures:
    """Time both tasks with each number of slots; answers have drawn lengths on both sides."""
    extent, left_out = context.extent, list[str]()
    images = max(_IMAGES, *extent.batches)
    works = context.workloads(context.main, images=images)
    graphs = (False, True) if context.is_cuda else (False,)
    ours = [
        (name, slots, graph)
        for slots in extent.throughput_slots
        for graph in graphs
        for name in ("brief", "detailed")
    ]
    theirs = [(name, batch) for batch in extent.batches for name in ("brief", "detailed")]
    # Hugging Face's share comes first, or nothing is left for it.
    paces, each_s = list[Pace](), _seconds_each(context, deadline, len(ours) + len(theirs))
    for name, batch in theirs:
        if deadline.is_over:
            left_out.append(f"{name}, Hugging Face, batch {batch}: the time is up")
        else:
            paces.append(_their_pace(context, name, getattr(works, name), batch))
    for name, slots, graph in ours:
        seconds = min(each_s, deadline.left_s)
        if seconds < min(_SHORTEST_S, extent.throughput_s):
            left_out.append(f"{name}, {slots} slots: the time is up")
            continue
        try:
            pace = _our_pace(context, name, getattr(works, name), slots, graph, seconds, deadline)
        except (NotEnoughMemory, EngineOutOfMemory) as error:
            left_out.append(f"{name}, {slots} slots: {error}")
        else:
            paces.append(pace)
        context.free()
    return ThroughputFigures(paces=tuple(paces), left_out=tuple(left_out))


def _seconds_each(context: CheckContext, deadline: Deadline, count: int) -> float:
    return min(context.extent.throughput_s, deadline.left_s / count)


def _our_pace(
    context: CheckContext,
    name: str,
    work: Workload,
    slots: int,
    graph: bool,
    seconds: float,
    deadline: Deadline,
) -> Pace:
    engine = context.engine(
        context.main,
        Generation(slots=slots, cuda_graph="auto" if graph else "off"),
        length=work.longest,
    )
    completions: Any = steady_completions(engine, work)
    images, tokens, clock = 0, 0, _clock(context)
    begun = clock()
    with closing(completions):
        for completion in completions:
            images += 1
            tokens += len(completion.token_ids)
            took = clock() - begun
            if (took >= seconds and images >= slots) or deadline.is_over:
                break
    return Pace(
        task=name,
        size=slots,
        is_ours=True,
        cuda_graph=graph,
        images_per_s=images / took,
        tokens_per_s=tokens / took,
    )


def _clock(context: CheckContext) -> Clock:
    """Return a clock. That of a CPU is this process's time, which others hardly affect."""
    return time.perf_counter if context.is_cuda else time.process_time


def _their_pace(context: CheckContext, name: str, work: Workload, batch: int) -> Pace:
    oracle, work = context.oracle(context.main), work.first(batch)
    generate_answers(oracle, work.first(1), 1)
    context.wait()
    clock = _clock(context)
    begun = clock()
    answers = generate_answers(oracle, work, batch)
    context.wait()
    took = clock() - begun
    return Pace(
        task=name,
        size=batch,
        is_ours=False,
        cuda_graph=False,
        images_per_s=batch / took,
        tokens_per_s=sum(map(len, answers.values())) / took,
    )
