"""`kosmos2 bench`: measurements on this machine. Each prints its figures, or one JSON object."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.options.groups import AsJson
from jobs.terminal import print_json, print_message, print_results
from pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from jobs.bench.machine import BenchResult


def images_command(*, images: int = 24, rounds: int = 7, json: AsJson = False) -> int:
    """Time encoded bytes to 224x224 pixels against the Hugging Face processor, on one thread.

    Parameters
    ----------
    images
        Images of 1024x768, made up with the spectrum of photographs.
    rounds
        Interleaved pairs; medians are shown.
    """
    from jobs.bench.images import bench_images

    return _shown(bench_images(images=images, rounds=rounds), as_json=json)


def engine_command(
    *,
    full: bool = False,
    images: int | None = None,
    pairs: int = 3,
    ngram: int = 0,
    json: AsJson = False,
) -> int:
    """Time our engine against Hugging Face's `generate`, token for token, on one thread.

    A model with random weights and the real one's proportions; both sides give answers of the
    same lengths, in turn. Takes a quarter of an hour on a machine that does nothing else.

    Parameters
    ----------
    full
        8 images per slot instead of 4.
    images
        As many instead, for a quick look; fewer than 4 per slot flatter Hugging Face.
    pairs
        How often both sides do the same work in turn; medians are shown.
    ngram
        Ban repeated n-grams of that size, on both sides; 0 bans none.
    """
    from jobs.bench.engine.comparison import Setup, bench_engine

    setup = Setup(images=images or (128 if full else 64), pairs=pairs, ngram_size=ngram)
    found = bench_engine(setup, print_message if json else print_results)
    if json:
        print_json(asdict(found))
    return ExitCode.DONE if found.is_right else ExitCode.ERROR


def pipeline_command(*, shards: int = 12, images: int = 250, json: AsJson = False) -> int:
    """Run the whole job around a model that only takes its time: how busy is the model kept?

    With 10 ms and with 2 ms per image, on a Ray of this machine; takes two minutes.

    Parameters
    ----------
    shards
        Shards to make, of drawn scenes as JPEG.
    images
        Images per shard.
    """
    from jobs.bench.pipeline import bench_pipeline

    return _shown(bench_pipeline(shards=shards, images=images), as_json=json)


def scale_command(
    *,
    shards: tuple[int, ...] = (1_000, 10_000, 100_000),
    at: str | None = None,
    json: AsJson = False,
) -> int:
    """Plan, start, resume and look at jobs of ever more shards: does it stay near linear?

    The shards hold no images, and 99 % of them are committed already; takes some minutes.

    ```
    kosmos2 bench scale --json
    ```

    Parameters
    ----------
    shards
        How many; repeat for more.
    at
        Directory or s3:// prefix to work under, and to leave as it was.
    """
    from jobs.bench.scale import bench_scale

    return _shown(bench_scale(shards=shards, at=at), as_json=json)


def actors_command(
    *,
    actors: tuple[int, ...] = (1, 2, 4, 8),
    image_ms: float = 40.0,
    seconds: float = 100.0,
    json: AsJson = False,
) -> int:
    """Run the whole job with several numbers of actors that only wait: how much do more do?

    Ray counts with as many CPUs as they need, whatever this machine has; takes some minutes.

    ```
    kosmos2 bench actors --json
    ```

    Parameters
    ----------
    actors
        How many; repeat for more. The first is what the others are compared with.
    image_ms
        What a device takes for each image.
    seconds
        How long each number works, about.
    """
    from jobs.bench.actors import bench_actors

    found = bench_actors(actors=actors, image_ms=image_ms, seconds=seconds)
    return _shown(found, as_json=json)


def driver_command(
    *, small_shards: int = 1000, large_shards: int = 40, json: AsJson = False
) -> int:
    """Run the whole job around a model that costs nothing: how much does one driver carry?

    ```
    kosmos2 bench driver --json
    ```

    Parameters
    ----------
    small_shards
        How many shards of one image.
    large_shards
        How many shards of 512 images.
    """
    from jobs.bench.driver import bench_driver

    found = bench_driver(small_shards=small_shards, large_shards=large_shards)
    return _shown(found, as_json=json)


def soak_command(
    *,
    minutes: float = 30.0,
    image_ms: float = 20.0,
    actors: int = 1,
    shard_mb: float = 1.0,
    json: bool = False,
) -> int:
    """Run the whole job for a while around actors that only wait: does it hold more and more?

    Memory, file handles and threads of driver and actors, Ray objects held, stored and spilled.

    ```
    kosmos2 bench soak --minutes 30
    kosmos2 bench soak --minutes 5 --shard-mb 1000 --image-ms 200
    ```

    Parameters
    ----------
    minutes
        How long, from the first image on.
    image_ms
        What a device takes for each image.
    actors
        How many.
    shard_mb
        Size of each shard. From 100 on its images have about 1 MB.
    json
        Print one JSON object, every sample included, instead of a table.
    """
    from jobs.bench.soak import bench_soak

    found = bench_soak(minutes=minutes, image_ms=image_ms, actors=actors, shard_mb=shard_mb)
    return _shown(found, as_json=json)


def _shown(found: "BenchResult", *, as_json: bool) -> int:
    if as_json:
        print_json(asdict(found))
    else:
        print_results(*found.page())
    return ExitCode.DONE
