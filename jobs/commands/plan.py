"""`kosmos2 plan`: estimate a job before it starts."""

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.commands.report import write_html
from jobs.options.groups import AsJson, ConfigFile, JobInput, with_flags
from jobs.options.job_file import job_spec
from jobs.options.places import check_new_file
from jobs.terminal import hours_minutes_seconds, pairs_table, print_json, print_results
from pipeline.costs.drivers import ENOUGH_CORES, BusyPace
from pipeline.costs.interval import Estimate
from pipeline.costs.text import estimate_text, interval_text
from pipeline.dataset.listings import HeldListings
from pipeline.errors import SpecError
from pipeline.estimate.survey import Survey, survey
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobOptions, JobSpec
from pipeline.storage.ignored import ignored_in_one_line

if TYPE_CHECKING:
    from kosmos2_core.images.decode import DecodeMode
    from pipeline.estimate.reader_cost import ReaderCost
    from pipeline.estimate.trial import Trial

# Measured with the embedded model, one task, zstd. `--sample` measures it for the job.
_BYTES_PER_ANNOTATION = 330
_HOUR_S = 3600.0
_DRIVER_FULL = 0.8  # of the one core that Python uses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Cost of the job with `actors` actors, each as fast as the sample was.

    To keep them busy, readers need `reader_cores` like those of this machine, for each mode of
    `--decode`, and `drivers` need `driver_cores` together; each can use one. `decode` is the
    job's mode.
    """

    actors: int
    hours: Estimate
    gpu_hours: Estimate
    money: Estimate | None
    decode: "DecodeMode"
    reader_cores: "dict[DecodeMode, float]"
    driver_cores: float
    drivers: int = 1


@with_flags
def plan_command(
    input: JobInput = None,
    /,
    *,
    sample: int | None = None,
    preview: Path | None = None,
    seed: int = 0,
    json: AsJson = False,
    config: ConfigFile = None,
    options: JobOptions,
) -> int:
    """Show what there is to annotate under INPUT, and estimate the job. Writes nothing.

    ```
    kosmos2 plan s3://bucket/shards/ --sample 200 --actors 8 --gpu-hour-cost 2.50
    kosmos2 plan s3://bucket/shards/ --sample 200 --task brief --task detailed --preview sheet.html
    ```

    With --gpu-hour-cost, the cost is estimated, too.

    Images are counted in the first 8 MB of up to eight shards. With --sample, images are annotated
    in this process to measure the pace, and read in both modes of --decode to count the CPUs that
    readers use: run it on a machine like those of the job.

    Parameters
    ----------
    sample
        Number of images to annotate as a sample, to estimate the time of the whole job. They are
        chosen at random from up to eight shards; in a tar, from its beginning, eight times as long.
    preview
        File to write the images of the sample to, with their answers; several tasks side by side.
    seed
        Another number chooses other images.
    """
    check_new_file(preview)
    if preview is not None and not sample:
        raise SpecError("--preview shows the answers of a sample; add --sample 200")
    nowhere = os.devnull if config is None else None  # nothing is written
    spec = job_spec(input, nowhere, options, config)
    found = survey(spec)
    tried = None
    if sample:
        from pipeline.estimate.trial import trial

        tried = trial(spec, found.shards, sample, found.listings, seed)
    if preview is not None and tried is not None:
        from pipeline.estimate.preview import preview_page

        write_html(preview, preview_page(spec, tried, found.shards), name="preview")
    cost = _cost(spec, found, tried) if tried else None
    if json:
        print_json(_as_json(found, tried, cost))
    else:
        print_results(pairs_table(_rows(spec, found, tried, cost), title=spec.input))
    return ExitCode.DONE


def _cost(spec: JobSpec, found: Survey, tried: "Trial") -> _Cost:
    _, actors = spec.actors
    actor_hours = tried.seconds_per_image.by(found.images).times(1 / _HOUR_S)
    gpu_hours = actor_hours.times(spec.gpus_per_actor or 1)
    pace = BusyPace(
        images_per_s=1 / tried.seconds_per_image.value,
        images_per_shard=found.images.value / max(len(found.shards), 1),
    )
    images_per_s = actors * pace.images_per_s
    return _Cost(
        decode=spec.decode,
        reader_cores={
            mode: images_per_s * cost.total_ms / 1000 for mode, cost in tried.reader.items()
        },
        driver_cores=pace.driver_cores(actors),
        drivers=spec.drivers_for(pace.drivers(actors)),
        actors=actors,
        hours=actor_hours.times(1 / actors),
        gpu_hours=gpu_hours,
        money=gpu_hours.times(price) if (price := spec.gpu_hour_cost) is not None else None,
    )


def _output_bytes(spec: JobSpec, found: Survey, tried: "Trial | None") -> Estimate:
    per_image = tried.bytes_per_image if tried else _BYTES_PER_ANNOTATION * len(spec.task)
    return found.images.times(per_image)


def _as_json(found: Survey, tried: "Trial | None", cost: _Cost | None) -> object:
    body = asdict(replace(found, shards=(), listings=HeldListings()))
    del body["listings"]
    body["shards"] = len(found.shards)
    sample = None
    if tried:
        sample = asdict(replace(tried, answers=())) | {"model": tried.model.model_dump()}
        del sample["answers"]
    return {**body, "sample": sample, "cost": asdict(cost) if cost else None}


def _rows(
    spec: JobSpec, found: Survey, tried: "Trial | None", cost: _Cost | None
) -> list[tuple[str, str]]:
    return [
        ("shards", f"{len(found.shards)} ({_counts(found.shards_by_format)})"),
        ("bytes", _bytes(found.size_bytes)),
        ("images", f"{_number(found.images)}, from {found.images_looked_at} that were counted"),
        ("formats", _counts(found.images_by_format)),
        *([("ignored", ignored_in_one_line(found.ignored))] if found.ignored else []),
        ("output", f"about {_bytes(_output_bytes(spec, found, tried).value)}"),
        ("requests", _requests(found)),
        *(_sample_rows(tried) if tried else [("time", "use --sample 200 to estimate it")]),
        *(_cost_rows(cost) if cost else []),
    ]


def _requests(found: Survey) -> str:
    asked = found.requests
    return (
        f"{asked.gets} GET, at most {asked.puts} PUT, {asked.lists} LIST; also one PUT and one GET "
        "every 5 s for the lease"
    )


def _sample_rows(tried: "Trial") -> list[tuple[str, str]]:
    pace = tried.seconds_per_image
    return [
        (
            "sample",
            f"{tried.images} images, {tried.rejected} of their annotations rejected, on "
            f"{tried.model.device} in {tried.model.dtype}",
        ),
        ("pace", f"{1 / pace.value:.1f} images/s ({interval_text(pace, _milliseconds)})"),
        *((f"reading with --decode {mode}", _reading(cost)) for mode, cost in tried.reader.items()),
    ]


def _reading(cost: "ReaderCost") -> str:
    return (
        f"{cost.total_ms:.1f} ms of CPU per image: fetch {cost.fetch_ms:.1f}, decode "
        f"{cost.decode_ms:.1f}, resize {cost.resize_ms:.1f}, table {cost.table_ms:.1f}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _cost_rows(cost: _Cost) -> list[tuple[str, str]]:
    time = estimate_text(cost.hours.times(_HOUR_S), hours_minutes_seconds)
    cores = ", ".join(f"{n:.2g} with --decode {mode}" for mode, n in cost.reader_cores.items())
    rows = [
        (f"time with {cost.actors} actors like this one", time),
        ("CPUs that their readers use", cores),
        ("limit", _limit(cost)),
    ]
    if cost.money is not None:
        rows.append(("cost of the GPUs", estimate_text(cost.money, "{:,.2f}".format)))
    return rows


def _limit(cost: _Cost) -> str:
    """Return what limits the pace if there are CPUs enough for readers, and what these need."""
    busy = cost.driver_cores / cost.drivers
    if busy > _DRIVER_FULL:
        wanted = math.ceil(cost.driver_cores / ENOUGH_CORES)
        return (
            f"the driver: it would need {cost.driver_cores:.1f} cores where each driver can use "
            f"one; --drivers {wanted}, or larger shards"
        )
    return (
        f"actors, if readers have {max(math.ceil(cost.reader_cores[cost.decode]), 1)} CPUs beside "
        f"them; else readers. The driver would be {busy:.0%} busy"
    )


def _number(estimate: Estimate) -> str:
    if estimate.low == estimate.high:
        return f"{estimate.value:,.0f}"
    return f"about {estimate.value:,.0f} ({interval_text(estimate, '{:,.0f}'.format)})"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
