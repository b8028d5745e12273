"""A schedule of faults, drawn from a seed."""

import random
from dataclasses import dataclass

DEATHS = ("kill_driver", "stop_driver", "kill_actor", "kill_reader", "lose_node")
DEATH_OF_A_DRIVER = "kill_part_driver"  # one of two
TROUBLES = ("slow_downs", "resets", "lose_answers", "cut_bodies", "stall_bodies")
# A run without faults makes about 50 requests; one that begins again adds some.
_EARLIEST, _LATEST, _ADDED = 8, 45, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of the above. `after` so many requests to the store, whichever process makes them: a
    slow machine gets to the same places as a fast one. `count`: of requests in trouble."""

    kind: str
    after: int
    count: int = 1


def drivers_of_schedule(number: int) -> int:
    """Two drivers in every third schedule."""
    return 2 if number % 3 == 2 else 1


def draw(seed: int, number: int) -> tuple[Fault, ...]:
    """The faults of the `number`-th schedule, in their order."""
    chance = random.Random(f"{seed}/{number}")
    deaths = [
        Fault(kind=kind, after=chance.randint(_EARLIEST, _LATEST) + _ADDED * before)
        for before, kind in enumerate(chance.sample(DEATHS, k=chance.randint(1, 3)))
    ]
    troubles = [
        Fault(kind=kind, after=chance.randint(1, _LATEST), count=chance.randint(1, 4))
        for kind in chance.sample(TROUBLES, k=chance.randint(1, 4))
    ]
    if drivers_of_schedule(number) > 1:
        deaths.append(Fault(kind=DEATH_OF_A_DRIVER, after=chance.randint(_EARLIEST, _LATEST)))
    return tuple(sorted([*deaths, *troubles], key=lambda fault: fault.after))
