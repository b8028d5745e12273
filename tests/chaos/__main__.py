"""`make chaos SCHEDULES=30 SEED=1`: many schedules of faults; the outcome of each is kept."""

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from kosmos2_core.shapes.world.shards import write_shards
from tests.chaos.run import HANG_S, Chaos, Outcome
from tests.chaos.schedule import draw, drivers_of_schedule
from tests.chaos.world import World, running_world
from tests.support.azurite import running_azurite
from tests.support.bucket import FEW_OBJECTS
from tests.support.s3 import running_s3_server

OUTCOMES = Path(__file__).with_name("chaos.jsonl")
SHARDS, IMAGES = 12, 30
STORES = {"s3": running_s3_server, "azure": running_azurite}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedules", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule")
    parser.add_argument(
        "--hang-s",
        type=float,
        default=HANG_S,
        help="a schedule that takes longer, on an idle machine",
    )
    parser.add_argument("--store", choices=STORES, default="s3")
    asked = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, STORES[asked.store]() as server:
        write_shards(Path(folder), shards=SHARDS, images=IMAGES, seed=7, objects=FEW_OBJECTS)
        with running_world(server) as world:
            for number in range(asked.first, asked.first + asked.schedules):
                chaos = prepared(world, Path(folder), asked.seed, number)
                samples = dict.fromkeys(stems(Path(folder)), IMAGES)
                outcome = chaos.run(samples, hang_s=asked.hang_s)
                report(chaos, outcome, asked.store, asked.seed, number)
                outcomes.append(outcome)
    lost = sum(outcome.found.lost for outcome in outcomes)
    twice = sum(outcome.found.twice for outcome in outcomes)
    hangs = sum(outcome.is_hanging for outcome in outcomes)
    print(f"{len(outcomes)} schedules, {lost} lost, {twice} twice, {hangs} hangs")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def prepared(world: World, folder: Path, seed: int, number: int) -> Chaos:
    bucket = world.bucket(f"chaos-{seed}-{number}")
    bucket.put_shards(folder)
    return Chaos(
        world=world,
        bucket=bucket,
        faults=list(draw(seed, number)),
        chance=random.Random(f"victims of {seed}/{number}"),
        drivers=drivers_of_schedule(number),
    )


def stems(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.glob("*.tar"))]


def report(chaos: Chaos, outcome: Outcome, store: str, seed: int, number: int) -> None:
    line = {
        "store": store,
        "seed": seed,
        "schedule": number,
        "drivers": chaos.drivers,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(outcome),
        "seconds": round(outcome.seconds, 1),
        "is_good": outcome.is_good,
    }
    with OUTCOMES.open("a") as file:
        file.write(json.dumps(line) + "\n")
    verdict = "good" if outcome.is_good else f"BAD: {outcome.found}"
    print(
        f"schedule {number}, drivers {chaos.drivers}: {', '.join(outcome.happened)}; "
        f"exit codes {outcome.exit_codes}, {outcome.seconds:.0f} s, {verdict}",
        flush=True,
    )
    if not outcome.is_good:
        print(*chaos.said, sep="\n---\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
