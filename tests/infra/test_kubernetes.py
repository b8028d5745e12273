"""The manifests. No Kubernetes is here, and KubeRay's own schema is in no package registry.

So: all that is Kubernetes' own, pod templates included, is held against its schema; KubeRay's
fields against the names that its reference has; and what Ray's autoscaler reads, Ray reads here.
"""

import re
from typing import Any

import kubernetes_validate
import pytest
import ray
from ray.autoscaler._private.kuberay import autoscaling_config

from jobs.cli import app
from pipeline.execution.resources import actor_resources
from tests.support.deployment import PROJECT, annotate_in, objects, pinned, the

KUBERNETES = "1.37"
# Those of KubeRay 1.6 that we use; an unknown field would be dropped in silence.
KUBERAY_FIELDS = {
    "job": {
        *("entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes"),
        *("ttlSecondsAfterFinished", "rayClusterSpec"),
    },
    "cluster": {
        *("rayVersion", "enableInTreeAutoscaling", "authOptions", "autoscalerOptions"),
        *("headGroupSpec", "workerGroupSpecs"),
    },
    "auth": {"mode", "secretName"},
    "autoscaler": {"version", "idleTimeoutSeconds", "securityContext"},
    "head": {"serviceType", "enableIngress", "rayStartParams", "template"},
    "worker": {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    },
}
OWN = [one for one in objects() if not one["apiVersion"].startswith("ray.io/")]
CLUSTER = the("RayCluster")["spec"]
JOB = the("RayJob")["spec"]
GROUPS = {
    "head": CLUSTER["headGroupSpec"],
    **{group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]},
}
SPOT = {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"}


def pod(group: str) -> dict[str, Any]:
    spec: dict[str, Any] = GROUPS[group]["template"]["spec"]
    return spec


def container(group: str) -> dict[str, Any]:
    [found] = pod(group)["containers"]
    return found


@pytest.mark.parametrize("found", OWN, ids=lambda one: one["kind"])
def test_object_fits_the_schema_of_kubernetes(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, KUBERNETES, strict=True)


@pytest.mark.parametrize("group", GROUPS)
def test_pods_fit_the_schema_of_kubernetes(group: str) -> None:
    template = {"apiVersion": "v1", "kind": "PodTemplate", "template": GROUPS[group]["template"]}
    kubernetes_validate.validate(template, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("job", JOB),
        ("cluster", CLUSTER),
        ("auth", CLUSTER["authOptions"]),
        ("autoscaler", CLUSTER["autoscalerOptions"]),
        ("head", GROUPS["head"]),
        ("worker", GROUPS["gpu"]),
        ("worker", GROUPS["readers"]),
    ],
)
def test_fields_of_kuberay_are_known_ones(part: str, found: dict[str, Any]) -> None:
    assert set(found) - KUBERAY_FIELDS[part] == set()


def test_api_of_kuberay_is_the_stable_one() -> None:
    assert {one["apiVersion"] for one in objects() if one not in OWN} == {"ray.io/v1"}


def test_job_brings_the_cluster_that_also_stands_alone() -> None:
    assert JOB["rayClusterSpec"] == CLUSTER


def test_versions_are_those_that_we_test() -> None:
    assert CLUSTER["rayVersion"] == pinned("ray")
    images = {group: container(group)["image"].rpartition(":")[2] for group in GROUPS}
    version = PROJECT["version"]
    assert images == {
        "head": f"{version}-cpu",
        "gpu": f"{version}-cuda",
        "readers": f"{version}-cpu",
    }


def test_autoscaler_of_ray_reads_the_cluster() -> None:
    cluster = the("RayCluster")
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    nodes = {
        name: (kind["min_workers"], kind["max_workers"], kind["resources"])
        for name, kind in read["available_node_types"].items()
    }
    assert CLUSTER["enableInTreeAutoscaling"]
    assert nodes == {
        "headgroup": (0, 0, {"CPU": 0, "memory": 16 << 30}),
        "gpu": (4, 16, {"CPU": 1, "GPU": 1, "memory": 24 << 30}),
        "readers": (1, 16, {"CPU": 8, "memory": 16 << 30}),
    }


def test_actors_fit_from_the_start_and_leave_their_nodes_no_cpu_for_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On what is there before anything scales; a stand-in for GPUs that are not here."""
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(the("RayCluster"))
    kinds = read["available_node_types"].values()
    at_first = [kind["resources"] for kind in kinds for _ in range(kind["min_workers"])]
    total = {name: sum(node.get(name, 0) for node in at_first) for name in ("CPU", "GPU")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)
    needs = actor_resources(annotate_in(JOB["entrypoint"]))
    assert needs.num_gpus == 1
    assert {n["CPU"] - needs.num_cpus for n in at_first if n.get("GPU")} == {0}


def test_run_that_ended_is_not_tried_again_and_holds_no_gpu() -> None:
    assert JOB["backoffLimit"] == 0
    assert JOB["submissionMode"] == "HTTPMode"  # so no submitter, which has a limit of its own
    assert JOB["shutdownAfterJobFinishes"] is True
    assert 0 < JOB["ttlSecondsAfterFinished"] <= 3600


def test_ray_asks_for_a_token_on_every_node() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "kosmos2-ray-token"}
    for group in GROUPS:
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container(group)["env"]


def test_dashboard_is_not_exposed() -> None:
    assert CLUSTER["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert CLUSTER["headGroupSpec"]["enableIngress"] is False
    assert {one["kind"] for one in objects()} & {"Ingress", "Service", "HTTPRoute"} == set()
    policy = the("NetworkPolicy")["spec"]
    labels = policy["podSelector"]["matchLabels"]
    for group in GROUPS:
        assert labels.items() <= GROUPS[group]["template"]["metadata"]["labels"].items()
    ours, operator = policy["ingress"]
    assert ours == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert operator["ports"] == [{"port": 8265}]
    assert [one["podSelector"]["matchLabels"] for one in operator["from"]] == [
        {"app.kubernetes.io/name": "kuberay-operator"}
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_pods_have_no_more_rights_than_they_need(group: str) -> None:
    assert pod(group)["securityContext"]["runAsNonRoot"] is True
    assert pod(group)["securityContext"]["runAsUser"] == 10001
    assert container(group)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container(group)["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod(group)["serviceAccountName"] == the("ServiceAccount")["metadata"]["name"]
    # The autoscaler, beside the head, speaks to Kubernetes; workers do not.
    assert pod(group).get("automountServiceAccountToken", True) is (group == "head")


@pytest.mark.parametrize("group", GROUPS)
def test_secrets_are_references(group: str) -> None:
    for variable in container(group)["env"]:
        if re.search("KEY|TOKEN|SECRET|PASSWORD", variable["name"]):
            assert "value" not in variable
    assert [list(one) for one in container(group)["envFrom"]] == [["secretRef"]]
    assert "Secret" not in {one["kind"] for one in objects()}


def test_workers_may_be_lost_and_the_driver_stays() -> None:
    tolerated = {
        group: {one["key"] for one in pod(group).get("tolerations", [])} for group in GROUPS
    }
    assert tolerated == {"head": set(), "gpu": SPOT | {"nvidia.com/gpu"}, "readers": SPOT}


def test_a_head_that_ends_in_order_asks_the_run_to_stop_and_waits() -> None:
    program, *arguments = container("head")["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "kosmos2"
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert command.__name__ == "stop_command"
    assert bound.arguments["output"] == annotate_in(JOB["entrypoint"]).output
    assert bound.arguments["wait"] is True
    assert bound.arguments["timeout_s"] < pod("head")["terminationGracePeriodSeconds"]


def test_models_outlive_the_pods_that_share_them() -> None:
    claim = the("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    [volume] = pod("gpu")["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    [mount] = container("gpu")["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/home/kosmos2/.cache"}


def test_all_is_in_the_namespace_that_the_role_trusts() -> None:
    places = {one["metadata"].get("namespace") for one in objects() if one["kind"] != "Namespace"}
    assert places == {the("Namespace")["metadata"]["name"]}
