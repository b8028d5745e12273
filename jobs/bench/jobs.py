"""Jobs for benchmarks of everything but the model."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.bench.light.model import LightModel
from jobs.bench.paced import PacedModel
from pipeline.driver.run import run
from pipeline.errors import PipelineError
from pipeline.execution.graph import RayTables
from pipeline.execution.read_task import MakeReader, shard_reader
from pipeline.exit_codes import ExitCode
from pipeline.progress import ProgressObserver
from pipeline.spec.job import JobSpec


class RunIncomplete(PipelineError):
    """Raised when a measured job did not commit all of its shards: its figures mean nothing.

    Read the job's log, remove the cause, and measure again.
    """

    code = "run_incomplete"


def run_whole(
    spec: JobSpec,
    observe: ProgressObserver,
    model: LightModel | PacedModel,
    reader: MakeReader = shard_reader,
) -> None:
    """Run a job to its end. Raises RunIncomplete."""
    verdict = run(spec, observe, RayTables(model, reader))
    if verdict.exit_code is not ExitCode.DONE:
        raise RunIncomplete(f"the job did not get through: {verdict.failures[:1]}")


def run_light(spec: JobSpec, observe: ProgressObserver, *, image_cost_s: float) -> None:
    """Run a job around a light device. Raises RunIncomplete."""
    run_whole(spec, observe, LightModel(image_cost_s=image_cost_s))


def light_spec(inputs: Path, output: Path, **options: object) -> JobSpec:
    """Return the spec of a new job."""
    return JobSpec.model_validate(
        {"input": str(inputs), "output": str(output), "device": "cpu", **options}
    )


def loop_shards(folder: Path, archives: list[Path], count: int) -> None:
    """Link fewer archives into `count` shards. A shard is known by its name."""
    folder.mkdir(parents=True)
    for number in range(count):
        archive = archives[number % len(archives)]
        os.link(archive, folder / f"{number:06d}-{archive.name}")


def encoded(pixels: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_archive(path: Path, image: bytes, images: int) -> Path:
    """Write a tar with `images` copies of one image, each with a name of its own."""
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(images):
            member = tarfile.TarInfo(f"{index:06d}.jpg")
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    return path
