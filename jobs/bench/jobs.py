"""The whole job around a model that only takes its time, for benchmarks of all but the model."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.bench.models import LightModel, PacedModel, write_light_record
from pipeline.driver.passes import ProgressObserver
from pipeline.driver.run import run
from pipeline.errors import PipelineError
from pipeline.execution.graph import RayTables
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec


class RunIncomplete(PipelineError):
    """A job that is measured did not commit all of its shards: no figure would mean anything."""

    code = "run_incomplete"


def run_whole(spec: JobSpec, observe: ProgressObserver, model: LightModel | PacedModel) -> None:
    """Run a job to its end. Raises RunIncomplete."""
    verdict = run(spec, observe, RayTables(model))
    if verdict.exit_code is not ExitCode.DONE:
        raise RunIncomplete(f"the job did not get through: {verdict.failures[:1]}")


def run_light(spec: JobSpec, observe: ProgressObserver, *, image_cost_s: float) -> None:
    """Run a job around a light device. Raises RunIncomplete."""
    run_whole(spec, observe, LightModel(image_cost_s=image_cost_s))


def light_spec(inputs: Path, output: Path, **options: object) -> JobSpec:
    """Return a new job, whose `job.json` is in place."""
    spec = JobSpec.model_validate(
        {"input": str(inputs), "output": str(output), "device": "cpu", **options}
    )
    write_light_record(spec)
    return spec


def loop_shards(folder: Path, archives: list[Path], count: int) -> None:
    """Make `count` shards out of fewer archives, by links: a shard is known by its name."""
    folder.mkdir(parents=True)
    for number in range(count):
        archive = archives[number % len(archives)]
        os.link(archive, folder / f"{number:06d}-{archive.name}")


def encoded(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_archive(path: Path, image: bytes, images: int) -> Path:
    """Write a tar of the same image again and again, under other names."""
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(images):
            member = tarfile.TarInfo(f"{index:06d}.jpg")
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    return path
