"""`kosmos2 bench engine`: the engine against Hugging Face's `generate`, on one thread."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial

from jobs.bench.engine.floor import Floor
from jobs.bench.engine.kernels import NARROW, kernels_per_step
from jobs.bench.engine.scheduling import scheduler_share
from jobs.bench.machine import BenchResult, cpu_s, load_average, one_thread, timed
from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.machine import machine, versions
from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.comparison.random_model import Proportions, random_checkpoint
from kosmos2_core.comparison.sides import AnswerTokens, engine_answers, generate_answers
from kosmos2_core.comparison.ties import is_tie, partings
from kosmos2_core.comparison.workload import (
    BRIEF_LENGTHS,
    DETAILED_LENGTHS,
    Lengths,
    Workload,
    Workloads,
    workloads,
)
from kosmos2_core.engine.engine import Engine
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.length import most_tokens
from kosmos2_core.prompts.tasks import BRIEF, DETAILED

_WORKLOADS = tuple(each.name for each in fields(Workloads))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The measurement: of what, and how often.

    `trial_images`: images on which Hugging Face's batch size is chosen. `pairs`: how often both
    sides do the same work in turn.
    """

    proportions: Proportions = field(default_factory=Proportions)
    slots: int = 16
    images: int = 64
    brief: Lengths = BRIEF_LENGTHS
    detailed: Lengths = DETAILED_LENGTHS
    batches: tuple[int, ...] = (8, 16, 32)
    trial_images: int = 32
    pairs: int = 3
    ngram_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """`ratio`: CPU time of Hugging Face / ours, the median of `ratios`, those of each pair.

    `tokens_equal`: all tokens of all answers are equal. `ties`: answers that differ first where two
    tokens are equally likely. `disagreements`: answers that differ elsewhere; there must be none.
    `floor_share`: time of the matrix products alone / ours. `ours`, `theirs`: images per second of
    CPU, medians.
    """

    ratio: float
    tokens_equal: bool
    ties: int
    disagreements: int
    floor_share: float
    ratios: tuple[float, ...]
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBench(BenchResult):
    """`scheduler_share`: share of the engine's time in brief captions. `batch`: Hugging Face's."""

    brief: Contest
    detailed: Contest
    two_tasks: Contest
    constant_length: Contest
    kernels_per_step: int
    scheduler_share: float
    batch: int
    setup: Setup
    machine: str = field(default_factory=machine)
    load_after: float
    versions: dict[str, str]

    @property
    def is_right(self) -> bool:
        return not any(getattr(self, name).disagreements for name in _WORKLOADS)


def bench_engine(setup: Setup, show: Callable[[str], None]) -> EngineBench:
    """Compare both sides; `show` gets each line of figures as it is known."""
    with one_thread():
        return _measured(setup, show)


def _measured(setup: Setup, show: Callable[[str], None]) -> EngineBench:
    load_before = load_average()
    checkpoint = random_checkpoint(setup.proportions, ngram_size=setup.ngram_size)
    sides = _Sides(checkpoint, setup)
    works = workloads(checkpoint, images=setup.images, brief=setup.brief, detailed=setup.detailed)
    batch = sides.best_batch(works.brief.first(setup.trial_images))
    show(
        f"{setup.images} images, {setup.slots} slots, float32, one thread; Hugging Face in batches "
        f"of {batch}; medians of {setup.pairs}"
    )
    contests = {}
    for name in _WORKLOADS:
        contests[name] = sides.contest(getattr(works, name), batch)
        show(_line(name, contests[name]))
    kernels = sum(kernels_per_step(random_checkpoint(NARROW, ngram_size=0)).values())
    share, load_after = scheduler_share(sides.engine, works.brief), load_average()
    show(f"{kernels} kernels per decode step of 24 layers, scheduler {share:.2%} of the time")
    found = EngineBench(
        brief=contests["brief"],
        detailed=contests["detailed"],
        two_tasks=contests["two_tasks"],
        constant_length=contests["constant_length"],
        kernels_per_step=kernels,
        scheduler_share=share,
        batch=batch,
        setup=setup,
        load_before=load_before,
        load_after=load_after,
        versions=versions("torch", "transformers"),
    )
    show(f"{found.conditions}, {load_after:.1f} after")
    return found


def _line(name: str, contest: Contest) -> str:
    return (
        f"{name}: {contest.ratio:.2f}x ({contest.theirs:.2f} -> {contest.ours:.2f} images/s), "
        f"{_agreement(contest)}, "
        f"{contest.floor_share:.0%} of the time are the matrix products' floor"
    )


def _agreement(contest: Contest) -> str:
    if contest.disagreements:
        return f"tokens NOT EQUAL in {contest.disagreements} answers"
    return f"tokens equal but for {contest.ties} ties" if contest.ties else "tokens equal"


class _Sides:
    def __init__(self, checkpoint: Checkpoint, setup: Setup) -> None:
        self._oracle = Oracle(checkpoint)
        self._setup = setup
        longest = max(map(most_tokens, (BRIEF, DETAILED)))
        self.engine = Engine(checkpoint, Generation(slots=setup.slots), length=longest)
        self._floor = Floor(setup.proportions, setup.slots)

    def best_batch(self, work: Workload) -> int:
        """Return Hugging Face's fastest batch size, by one run each after a warm-up."""
        smallest, *_ = batches = sorted(self._setup.batches)
        self._theirs(work.first(smallest), smallest)
        took = {batch: cpu_s(partial(self._theirs, work, batch)) for batch in batches}
        return min(batches, key=took.__getitem__)

    def contest(self, work: Workload, batch: int) -> Contest:
        engine_answers(self.engine, work.first(self._setup.slots))  # warms up
        pairs = [self._pair(work, batch) for _ in range(self._setup.pairs)]
        images, ours = len(work.pixels), statistics.median(pair.ours_s for pair in pairs)
        ratios = tuple(pair.theirs_s / pair.ours_s for pair in pairs)
        return Contest(
            ratio=statistics.median(ratios),
            tokens_equal=not any(pair.ties or pair.disagreements for pair in pairs),
            ties=max(pair.ties for pair in pairs),
            disagreements=max(pair.disagreements for pair in pairs),
            floor_share=self._floor.seconds(work) / ours,
            ratios=ratios,
            ours=images / ours,
            theirs=images / statistics.median(pair.theirs_s for pair in pairs),
        )

    def _pair(self, work: Workload, batch: int) -> "_Pair":
        theirs, theirs_s = timed(partial(self._theirs, work, batch))
        ours, ours_s = timed(partial(engine_answers, self.engine, work))
        keys = partings(theirs, ours)
        parted = [is_tie(self._oracle, work, theirs, ours, key) for key in keys]
        return _Pair(
            theirs_s=theirs_s,
            ours_s=ours_s,
            ties=sum(parted),
            disagreements=len(parted) - sum(parted),
        )

    def _theirs(self, work: Workload, batch: int) -> AnswerTokens:
        return generate_answers(self._oracle, work, batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    theirs_s: float
    ours_s: float
    ties: int
    disagreements: int
