"""Tables of annotated rows that Ray's store holds, and calls that are made with them.

The driver looks at the keys of rows only. So the block of a table has one row with two cells: the
keys, and all the rows, which only the process that finishes a shard decodes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import ray

from pipeline.execution.parts.beside import answer_to_come, options_beside
from pipeline.execution.worker_log import begin_worker
from pipeline.logs import LogStyle, style_here
from pipeline.storage.clouds.retries import RETRIES

_T = TypeVar("_T")
_Work = Callable[[Sequence[Any], Sequence[pa.Table]], _T]

_RETRIES = 3  # retries of a call whose process died; its own errors are not retried
_DIED = (
    f"its process died {_RETRIES + 1} times, or its rows were lost ({{}}); check the memory of the "
    "driver's node, then run the same command again"
)
_threads = ThreadPoolExecutor(4, thread_name_prefix="call")


_KEYS = {"annotated": ("index", "task"), "rejected": ("index", "task", "error_type")}


def block_of(table: pa.Table) -> pa.Table:
    """Return the block of a table of `schema.ANNOTATED`."""
    keys = table.select(["shard_id", "usage", "end"])
    for name, fields in _KEYS.items():
        keys = keys.append_column(name, _only(table[name].combine_chunks(), fields))
    return pa.table({"keys": _cell(keys), "rows": _cell(table)})


def _only(structs: pa.StructArray, fields: Sequence[str]) -> pa.StructArray:
    kept = [structs.field(name) for name in fields]
    return pa.StructArray.from_arrays(kept, list(fields), mask=structs.is_null())


def _cell(table: pa.Table) -> pa.LargeBinaryArray:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _decoded(block: pa.Table, name: str) -> pa.Table:
    return pa.ipc.open_stream(block[name][0].as_buffer()).read_all()


@dataclass(frozen=True, slots=True, eq=False)
class StoredTable:
    """A table of `schema.ANNOTATED`.

    If `ref` refers to its block in Ray's store, `table` has the columns' keys only: `index`, `task`
    and, of rejections, `error_type`.
    """

    table: pa.Table
    ref: object = None

    @classmethod
    def of(cls, ref: "ray.ObjectRef[pa.Table]") -> "StoredTable":
        """Get the keys of a block. Raises RayError."""
        return cls(_decoded(ray.get(ref), "keys"), ref)


class Call(Protocol):
    """Calls `work(arguments, tables)` elsewhere, with the tables that are stored."""

    def __call__(
        self, work: _Work[_T], arguments: Sequence[Any], stored: Sequence[StoredTable]
    ) -> Future[_T]:
        """Return its result to come. That raises what `work` raised; WorkerDied."""
        ...


def call_in_thread(
    work: _Work[_T], arguments: Sequence[Any], stored: Sequence[StoredTable]
) -> Future[_T]:
    """Call in a thread of this process."""
    return _threads.submit(work, arguments, [each.table for each in stored])


class CallOnRay:
    """Calls in processes beside this one, one call at a time in each.

    There are few, and calls are short. They are actors, which wait for the next call: on a node
    with more workers than CPUs, Ray ends the process of a task one second after it, and to start
    another one takes longer than to finish a shard.
    """

    def __init__(self) -> None:
        options = options_beside(max_restarts=-1, max_task_retries=_RETRIES)
        self._process: Any = ray.remote(CallProcess).options(**options)
        self._free = list[Any]()  # processes without a call
        self._stored = dict[int, tuple[object, ray.ObjectRef[Any]]]()  # work, by its identity

    def __call__(
        self, work: _Work[_T], arguments: Sequence[Any], stored: Sequence[StoredTable]
    ) -> Future[_T]:
        if id(work) not in self._stored:
            self._stored[id(work)] = (work, ray.put(work))
        process = self._free.pop() if self._free else self._process.remote(style_here())
        refs = [each.ref for each in stored]
        answer = process.call.remote(self._stored[id(work)][1], arguments, *refs).future()
        answer.add_done_callback(lambda _: self._free.append(process))
        return answer_to_come(answer, died=_DIED, take=_result)


class CallProcess:
    """The process of a call."""

    def __init__(self, style: LogStyle) -> None:
        begin_worker(style)

    def call(
        self, work: _Work[_T], arguments: Sequence[Any], *blocks: pa.Table
    ) -> tuple[_T, float]:
        """Return the result, and the number of requests to the store that were retried for it."""
        before = RETRIES.total
        done = work(arguments, [_decoded(block, "rows") for block in blocks])
        return done, RETRIES.total - before


def _result(answer: tuple[_T, float]) -> _T:
    done, retries = answer
    RETRIES.add(retries)
    return done
