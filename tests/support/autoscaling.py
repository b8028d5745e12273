"""Nodes that Ray's autoscaler starts on this machine, by the provider of Ray's own tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
)

_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_OBJECT_STORE_BYTES = 1 << 30
_MAPPINGS = ("auth", "docker", "file_mounts")
_LISTS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Nodes of one kind that the autoscaler may start, and ends when they are idle.

    No GPU has to be there.
    """

    cpus: int
    gpus: int = 0
    most: int
    idle_s: float
    version: int  # of the autoscaler: 1, or 2 as on Kubernetes

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what the head needs in its environment."""
        return {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_enable_autoscaler_v2": str(int(self.version == 2)),
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }

    def config(self, address: str, head_cpus: int) -> dict[str, object]:
        """Return the autoscaler's configuration, for a head at this address."""
        each = {"CPU": self.cpus, "GPU": self.gpus, "object_store_memory": _OBJECT_STORE_BYTES}
        head = {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0}
        more = {"resources": each, "node_config": {}, "max_workers": self.most}
        return {
            "cluster_name": "here",
            "provider": {
                "type": "external",
                "module": _PROVIDER,
                "gcs_address": address,
                "head_node_id": FAKE_HEAD_NODE_ID,
                "launch_multiple": True,
                "use_node_id_as_ip": True,  # all nodes have the same address
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {FAKE_HEAD_NODE_TYPE: head, "more": more},
            "head_node_type": FAKE_HEAD_NODE_TYPE,
            "max_workers": self.most,
            "idle_timeout_minutes": self.idle_s / 60,
            # nothing is done to a node before Ray starts on it
            **{key: {} for key in _MAPPINGS},
            **{key: [] for key in _LISTS},
        }
