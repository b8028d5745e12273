"""One more node of a cluster on loopback:
`-m tests.support.node ADDRESS CPUS GPUS OBJECT_STORE_BYTES KEY=VALUE ...`, these its labels.

What `ray start --address` does, which refuses where RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 keeps all
listeners on loopback. Its processes are children of this one.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams


def main(address: str, cpus: str, gpus: str, object_store_bytes: str, *labels: str) -> None:
    parameters = RayParams(
        gcs_address=address,
        num_cpus=int(cpus),
        num_gpus=int(gpus),
        labels=dict(label.split("=") for label in labels),
        object_store_memory=int(object_store_bytes),
        # Any free port, not the one that each machine's only node has.
        node_manager_port=0,
        min_worker_port=0,
        max_worker_port=0,
        include_log_monitor=False,
    )
    parameters.dashboard_agent_listen_port = None
    Node(parameters, head=False, shutdown_at_exit=False, spawn_reaper=False)
    print("Ray runtime started", flush=True)
    signal.pause()


main(*sys.argv[1:])
