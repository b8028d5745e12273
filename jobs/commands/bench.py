"""`kosmos2 bench`: measure on this machine.

Each command prints figures, or one JSON object.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.options.groups import AsJson
from jobs.terminal import print_json, print_message, print_results
from pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from jobs.bench.machine import BenchResult


def images_command(*, images: int = 24, rounds: int = 7, json: AsJson = False) -> int:
    """Time image decoding to 224x224 pixels against the Hugging Face processor, on one thread.

    Parameters
    ----------
    images
        Number of synthetic images of 1024x768, with the spectrum of photographs.
    rounds
        Number of times that both sides run, in turns. The figures are medians.
    """
    from jobs.bench.images import bench_images

    return _shown(bench_images(images=images, rounds=rounds), as_json=json)


def decode_command(*, scenes: int = 100, rounds: int = 5, json: AsJson = False) -> int:
    """Compare `--decode fast` with exact: CPU time per size of JPEG, and the boxes of captions.

    ```
    kosmos2 bench decode --json
    ```

    Parameters
    ----------
    scenes
        Number of large drawn scenes that the embedded model describes.
    rounds
        Number of times that all sides run, in turns. The figures are medians.
    """
    from jobs.bench.decode import bench_decode

    return _shown(bench_decode(scenes=scenes, rounds=rounds), as_json=json)


def reader_command(
    *,
    images: int = 256,
    rounds: int = 5,
    width: int = 1024,
    height: int = 768,
    at: str | None = None,
    json: AsJson = False,
) -> int:
    """Measure what a reader costs per image: fetch, decode, resize and table, in CPU time.

    The images are JPEGs with the spectrum of photographs, in a tar and as one object each.

    ```
    kosmos2 bench reader --json
    kosmos2 bench reader --at s3://bucket/bench/
    ```

    Parameters
    ----------
    images
        Number of images in each input.
    rounds
        Number of times that each figure is measured. The figures are medians.
    width
        Width of the images in pixels.
    height
        Height of the images in pixels.
    at
        Directory or s3:// prefix to measure as well as this machine's disk. It is left as it was.
    """
    from jobs.bench.reading.reader import bench_reader

    found = bench_reader(images=images, rounds=rounds, width=width, height=height, at=at)
    return _shown(found, as_json=json)


def engine_command(
    *,
    full: bool = False,
    images: int | None = None,
    pairs: int = 3,
    ngram: int = 0,
    json: AsJson = False,
) -> int:
    """Time our engine against Hugging Face's `generate` on one thread, and compare all tokens.

    The model has random weights and the proportions of the published one. Both sides run in turns
    and generate answers of the same lengths. This takes 15 minutes on an idle machine.

    Parameters
    ----------
    full
        Use 8 images per slot instead of 4.
    images
        Number of images, for a quick look. Fewer than 4 per slot favour Hugging Face.
    pairs
        Number of times that both sides do the same work, in turns. The figures are medians.
    ngram
        Length of the n-grams that may not repeat, on both sides. 0 turns the rule off.
    """
    from jobs.bench.engine.comparison import Setup, bench_engine

    setup = Setup(images=images or (128 if full else 64), pairs=pairs, ngram_size=ngram)
    found = bench_engine(setup, print_message if json else print_results)
    if json:
        print_json(asdict(found))
    return ExitCode.DONE if found.is_right else ExitCode.ERROR


def host_command(*, images: int = 2048, repeats: int = 5, json: AsJson = False) -> int:
    """Measure the work of the host per image, with a device that costs nothing.

    The engine's loop and a whole actor run in this process with 256 slots, for brief and for
    detailed captions. Model and sampler only look up their answers. Printed are images per CPU
    second and, to compare machines, iterations of an empty Python loop per image. This takes a
    minute on an idle machine.

    ```
    kosmos2 bench host --json
    ```

    Parameters
    ----------
    images
        Number of images with brief captions. Detailed captions are made for half as many.
    repeats
        Number of times that each figure is measured. The figures are medians.
    """
    from jobs.bench.host.measuring import bench_host

    return _shown(bench_host(images=images, repeats=repeats), as_json=json)


def pipeline_command(
    *,
    shards: int = 12,
    images: int = 250,
    image_ms: tuple[float, ...] = (10.0, 2.0),
    slots: int = 16,
    pre_decoded: bool = False,
    json: AsJson = False,
) -> int:
    """Measure how busy the job keeps its model, with a stub model that takes a fixed time.

    Printed are the share of the time in which the stub's device computed, and the CPU time of each
    part of the job: driver, readers, actor, finishing of shards and Ray itself. This takes two
    minutes.

    ```
    kosmos2 bench pipeline --json
    kosmos2 bench pipeline --pre-decoded --slots 256 --image-ms 1 --image-ms 0.5 \\
        --shards 30 --images 1000
    ```

    Parameters
    ----------
    shards
        Shards to make, of drawn scenes as JPEG.
    images
        Images per shard.
    image_ms
        Milliseconds that the device takes for an image. Repeat for several.
    slots
        Images that the device processes at once.
    pre_decoded
        Let readers make pixels from nothing, so that actor and driver are what is measured.
    """
    from jobs.bench.pipeline import bench_pipeline

    found = bench_pipeline(
        shards=shards, images=images, costs_ms=image_ms, slots=slots, pre_decoded=pre_decoded
    )
    return _shown(found, as_json=json)


def scale_command(
    *,
    shards: tuple[int, ...] = (1_000, 10_000, 100_000),
    at: str | None = None,
    json: AsJson = False,
) -> int:
    """Time how jobs of more and more shards are planned, started, resumed and listed.

    The shards hold no images, and 99 % of them are committed. This takes some minutes.

    ```
    kosmos2 bench scale --json
    ```

    Parameters
    ----------
    shards
        Number of shards. Repeat for several.
    at
        Directory or s3:// prefix to work under. It is left as it was.
    """
    from jobs.bench.scale import bench_scale

    return _shown(bench_scale(shards=shards, at=at), as_json=json)


def actors_command(
    *,
    actors: tuple[int, ...] = (1, 2, 4, 8),
    image_ms: float = 40.0,
    seconds: float = 100.0,
    drivers: int = 1,
    pre_decoded: bool = False,
    json: AsJson = False,
) -> int:
    """Measure how the pace of a job grows with the number of actors. The actors only wait.

    Ray is told of as many CPUs as the actors need. This takes some minutes. Each actor is a
    process of 150 MB.

    ```
    kosmos2 bench actors --json
    kosmos2 bench actors --actors 64 --drivers 4 --image-ms 62.5 --pre-decoded
    ```

    Parameters
    ----------
    actors
        Number of actors. Repeat for several. The others are compared with the first.
    image_ms
        Milliseconds that an actor waits for each image.
    seconds
        Seconds to measure, from when all actors work.
    drivers
        Number of drivers, as in `annotate`; at most one per actor.
    pre_decoded
        Let readers make pixels from nothing, so that many actors need few CPUs.
    """
    from jobs.bench.actors import bench_actors

    found = bench_actors(
        actors=actors,
        image_ms=image_ms,
        seconds=seconds,
        drivers=drivers,
        pre_decoded=pre_decoded,
    )
    return _shown(found, as_json=json)


def driver_command(
    *,
    images_per_shard: tuple[int, ...] = (100, 1000, 10_000),
    images: int = 40_000,
    slots: int = 256,
    json: AsJson = False,
) -> int:
    """Measure how many images per second one driver carries. Readers and actors cost nothing.

    ```
    kosmos2 bench driver --json
    ```

    Parameters
    ----------
    images_per_shard
        Number of images in each shard. Repeat for several runs.
    images
        Number of images of a run, at least; a run has 12 shards or more.
    slots
        Slots of each actor, on which the size of tables depends.
    """
    from jobs.bench.driver import bench_driver

    found = bench_driver(images_per_shard=images_per_shard, images=images, slots=slots)
    return _shown(found, as_json=json)


def soak_command(
    *,
    minutes: float = 30.0,
    image_ms: float = 20.0,
    actors: int = 1,
    drivers: int = 1,
    shard_mb: float = 1.0,
    json: AsJson = False,
) -> int:
    """Run a job for a long time with actors that only wait, and measure what it holds.

    Measured are memory, file handles and threads of drivers and actors, and the Ray objects that
    are held, stored and spilled.

    ```
    kosmos2 bench soak --minutes 30
    kosmos2 bench soak --minutes 5 --shard-mb 1000 --image-ms 200
    ```

    Parameters
    ----------
    minutes
        Minutes to run, from the first image on.
    image_ms
        Milliseconds that an actor waits for each image.
    actors
        Number of actors.
    drivers
        Number of drivers, as in `annotate`; at most one per actor.
    shard_mb
        Size of each shard in MB. From 100 on, its images have about 1 MB.
    """
    from jobs.bench.soak import bench_soak

    found = bench_soak(
        minutes=minutes, image_ms=image_ms, actors=actors, shard_mb=shard_mb, drivers=drivers
    )
    return _shown(found, as_json=json)


def _shown(found: "BenchResult", *, as_json: bool) -> int:
    if as_json:
        print_json(asdict(found))
    else:
        print_results(*found.page())
    return ExitCode.DONE
