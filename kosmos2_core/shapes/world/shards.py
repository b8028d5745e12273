"""Write scenes of coloured shapes as JPEG files and WebDataset shards.

`python -m kosmos2_core.shapes.world.shards --help` lists the options.
"""

import argparse
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from kosmos2_core.shapes.world.ranges import PLAIN_WORLD, RANGES, Range
from kosmos2_core.shapes.world.scenes import Scene, check_scene, make_scene

__all__ = ["Scene", "choose_quality", "encode_jpeg", "main", "make_scene", "write_shards"]

QUALITY_STREAM = 1  # random stream for the quality, separate from the scene's


def encode_jpeg(scene: Scene, quality: int) -> bytes:
    """Encode a scene as JPEG; `quality` is in Pillow's scale, 1..95."""
    buffer = io.BytesIO()
    Image.fromarray(scene.pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_shards(
    out: Path,
    *,
    shards: int,
    images: int,
    seed: int,
    objects: tuple[int, int] | None = None,
    width: int | None = None,
    height: int | None = None,
    quality: int | None = None,
    world: Range = PLAIN_WORLD,
) -> list[Path]:
    """Write `shards` WebDataset tars of `images` samples each; equal arguments give equal bytes.

    A side or a quality that is not given is drawn from the seed for each sample.
    Raises ValueError for arguments out of range.
    """
    check_scene(seed, objects or world.objects, width, height)
    if shards < 1 or images < 1:
        raise ValueError(f"{shards} shards of {images} images: use at least 1 of each")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"shapes-{shard:05d}.tar" for shard in range(shards)]
    for shard, path in enumerate(paths):
        partial = path.with_name(f".{path.name}.partial")
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(shard * images, (shard + 1) * images):
                scene = make_scene(
                    seed, index, width=width, height=height, objects=objects, world=world
                )
                jpeg = encode_jpeg(scene, quality or choose_quality(seed, index, world))
                _add_member(tar, f"{index:08d}.jpg", jpeg)
                _add_member(tar, f"{index:08d}.json", _truth(scene))
        os.replace(partial, path)
    return paths


def choose_quality(seed: int, index: int, world: Range = PLAIN_WORLD) -> int:
    """Draw the JPEG quality of a scene."""
    rng = np.random.default_rng([seed, index, QUALITY_STREAM])
    return int(rng.integers(*world.qualities, endpoint=True))


def _truth(scene: Scene) -> bytes:
    """Return the content of a sample's JSON member."""
    height, width, _ = scene.pixels.shape
    objects = [asdict(item) for item in scene.objects]
    truth = {"objects": objects, "caption": scene.caption, "width": width, "height": height}
    return json.dumps(truth).encode()


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _object_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a range such as 1-4")
    return int(match[1]), int(match[2] or match[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write shards of synthetic scenes of shapes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for shapes-00000.tar ...")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--images", type=int, required=True, help="samples in each shard")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--objects", type=_object_range, help="number of objects per scene, such as 1-2 or 3"
    )
    parser.add_argument(
        "--range", choices=RANGES, default="plain", help="range of the scenes (default: plain)"
    )
    options = vars(parser.parse_args(arguments))
    world = RANGES[options.pop("range")]
    try:
        paths = write_shards(**options, world=world)
    except ValueError as error:
        parser.error(str(error))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
