"""The whole job around a light device, for benchmarks of all but the model."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from pipeline.driver.passes import ProgressObserver

from jobs.bench.models import LightModel, write_light_record
from pipeline.driver.run import run
from pipeline.errors import SpecError
from pipeline.exit_codes import ExitCode
from pipeline.spec.job import JobSpec


def loop_shards(folder: Path, archives: list[Path], count: int) -> None:
    """`count` shards out of fewer archives, by links: a shard is known by its name."""
    folder.mkdir(parents=True)
    for number in range(count):
        archive = archives[number % len(archives)]
        os.link(archive, folder / f"{number:06d}-{archive.name}")


def encoded(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as JPEG."""
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "JPEG", quality=90)
    return picture.getvalue()


def write_archive(path: Path, picture: bytes, images: int) -> Path:
    """A tar of the same picture again and again, under other names."""
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(images):
            member = tarfile.TarInfo(f"{index:06d}.jpg")
            member.size = len(picture)
            tar.addfile(member, io.BytesIO(picture))
    return path


def light_spec(inputs: Path, output: Path, **options: object) -> JobSpec:
    """A new job, with its `job.json` in place."""
    spec = JobSpec.model_validate(
        {"input": str(inputs), "output": str(output), "device": "cpu", **options}
    )
    write_light_record(spec)
    return spec


def run_light(spec: JobSpec, observe: ProgressObserver, *, image_cost_s: float) -> None:
    """Raises SpecError where not all is committed: no figure of it would mean anything."""
    verdict = run(spec, observe, load=LightModel(image_cost_s=image_cost_s))
    if verdict.exit_code is not ExitCode.DONE:
        raise SpecError(f"the job did not get through: {verdict.failures[:1]}")
