"""`kosmos2 bench`: the benchmarks of scale. Each prints its figures, or one JSON object."""

import json as json_module
from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App

from pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def add_to(bench: App) -> None:
    """Put the commands of this module under `kosmos2 bench`."""
    for command in (scale, driver, actors, soak):
        bench.command(command)


def _print_json(found: "DataclassInstance") -> None:
    print(json_module.dumps(asdict(found), indent=2))


def scale(
    *,
    shards: tuple[int, ...] = (1_000, 10_000, 100_000),
    at: str | None = None,
    json: bool = False,
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
    json
        Print one JSON object instead of a table.
    """
    from jobs.bench.scale import bench_scale, print_scale

    found = bench_scale(shards=shards, at=at)
    _print_json(found) if json else print_scale(found)
    return ExitCode.DONE


def actors(
    *,
    actors: tuple[int, ...] = (1, 2, 4, 8),
    image_ms: float = 40.0,
    seconds: float = 100.0,
    json: bool = False,
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
    json
        Print one JSON object instead of lines.
    """
    from jobs.bench.actors import bench_actors, print_actors

    found = bench_actors(actors=actors, image_ms=image_ms, seconds=seconds)
    _print_json(found) if json else print_actors(found)
    return ExitCode.DONE


def driver(*, small_shards: int = 1000, large_shards: int = 40, json: bool = False) -> int:
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
    json
        Print one JSON object instead of lines.
    """
    from jobs.bench.driver import bench_driver, print_driver

    found = bench_driver(small_shards=small_shards, large_shards=large_shards)
    _print_json(found) if json else print_driver(found)
    return ExitCode.DONE


def soak(
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
        Size of each shard. From 100 on its pictures have about 1 MB.
    json
        Print one JSON object, every sample included, instead of a table.
    """
    from jobs.bench.soak import bench_soak, print_soak

    found = bench_soak(minutes=minutes, image_ms=image_ms, actors=actors, shard_mb=shard_mb)
    _print_json(found) if json else print_soak(found)
    return ExitCode.DONE
