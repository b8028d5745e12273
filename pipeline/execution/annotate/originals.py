"""The index of annotated images, in a process that the readers of a cluster share."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.dataset.originals import OriginalIndex, index_outputs, outputs_of
from pipeline.execution.worker_log import begin_worker
from pipeline.faults import fault
from pipeline.logs import LogStyle, style_here
from pipeline.schema import Original
from pipeline.spec.job import JobSpec

_log = logging.getLogger(__name__)


class SharedOriginals:
    """An `OriginalIndex` of a job in a process beside its driver. It may be sent to workers.

    If the process dies, Ray starts another, which reads the commits again.
    """

    def __init__(self, spec: JobSpec) -> None:
        context = ray.get_runtime_context()
        here = NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False)
        self._actor: Any = (
            ray.remote(_Index)
            .options(
                name=f"kosmos2-originals-{context.get_job_id()}",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=here,
            )
            .remote(spec, style_here())
        )

    def find(self, hashes: Sequence[bytes]) -> Sequence[Original | None]:
        found: Sequence[Original | None] = ray.get(self._actor.find.remote(list(hashes)))
        return found

    def add(self, shard_id: str, images: Mapping[int, bytes]) -> None:
        self._actor.add.remote(shard_id, images)


class _Index:
    def __init__(self, spec: JobSpec, style: LogStyle) -> None:
        begin_worker(style)
        self._index = OriginalIndex()
        images = index_outputs(self._index, outputs_of(spec), tasks=len(spec.task))
        _log.info("%d annotated images are known, and copies of them are not annotated", images)

    def find(self, hashes: Sequence[bytes]) -> Sequence[Original | None]:
        fault("originals.find")
        return self._index.find(hashes)

    def add(self, shard_id: str, images: Mapping[int, bytes]) -> None:
        self._index.add(shard_id, images)
