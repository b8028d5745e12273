"""The cluster that would run a job."""

import os

from pipeline.doctor.setup import JobSetup
from pipeline.errors import SpecError
from pipeline.execution.ray_private import job_server_version
from pipeline.execution.ray_version import check_cluster_version


def resources(setup: JobSetup) -> str:
    """Connect to the cluster, and compare its resources with those of the job. Raises SpecError.

    Without an address, Ray is started on this machine, as a run would. A job server does not tell
    resources: only its version is checked.
    """
    if setup.job_server is not None:
        return _job_server(setup.job_server)
    source, (least, most) = setup.open_source(), setup.spec.actors
    each = source.open(setup.spec)
    load = source.cluster_load()
    where = os.environ.get("RAY_ADDRESS") or "this machine"
    fit = [int((load.cpus - 1) // each.num_cpus)] if each.num_cpus else []
    fit += [int(load.gpus // each.num_gpus)] if each.num_gpus else []
    said = (
        f"{where} has {load.cpus:g} CPUs ({load.free_cpus:g} free) and {load.gpus:g} GPUs "
        f"({load.free_gpus:g} free); {least} actors with {each} each fit"
    )
    if min(fit) < most:
        said += f", and {min(fit)} of up to {most}: more need more nodes"
    return said


def _job_server(address: str) -> str:
    version = job_server_version(address)
    if version is None:
        raise SpecError(
            f"no job server answers at {address}, or it requires another token: check the address "
            "(http://head:8265), RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )
    check_cluster_version(version, address)
    return f"the job server at {address} runs Ray {version}"
