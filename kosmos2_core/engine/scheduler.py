"""Which sequence has which slot. Knows nothing of what a sequence is."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")


class Move(NamedTuple):
    """The sequence in slot `slot` goes to slot `to`."""

    slot: int
    to: int


class Scheduler(Generic[_T]):
    """Sequences wait in a queue; live ones have the slots 0 .. n-1, without a hole.

    So a decode step reads one block of the cache, and new sequences get neighbouring slots.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._live: list[_T] = []
        self._waiting: deque[_T] = deque()

    @property
    def live(self) -> Sequence[_T]:
        return self._live

    @property
    def free(self) -> int:
        return self._slots - len(self._live)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def queue(self, sequences: Iterable[_T]) -> None:
        self._waiting.extend(sequences)

    def queue_first(self, sequences: Sequence[_T]) -> None:
        """Before all that wait: for those that hold memory as long as they wait."""
        self._waiting.extendleft(reversed(sequences))

    def admit(self, kind: Callable[[_T], object]) -> list[_T]:
        """The next sequences of one kind, as many as fit, get the slots behind the live ones."""
        admitted: list[_T] = []
        while self._waiting and len(admitted) < self.free:
            if admitted and kind(self._waiting[0]) != kind(admitted[0]):
                break
            admitted.append(self._waiting.popleft())
        self._live += admitted
        return admitted

    def release(self, slots: Collection[int]) -> list[Move]:
        """Free slots; the last sequences move into the holes."""
        freed = set(slots)
        kept = len(self._live) - len(freed)
        holes = sorted(slot for slot in freed if slot < kept)
        movers = [slot for slot in range(kept, len(self._live)) if slot not in freed]
        moves = [Move(slot=slot, to=hole) for hole, slot in zip(holes, movers, strict=True)]
        for move in moves:
            self._live[move.to] = self._live[move.slot]
        del self._live[kept:]
        return moves
