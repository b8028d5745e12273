"""Where the faults happen: three Ray nodes on this machine, and an S3 server behind a proxy."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.e2e.cluster import Kosmos2, Node, end_node, join_node, ray_workers, running_cluster
from tests.proxy import Proxy, running_proxy
from tests.s3 import S3Server

CPUS_PER_NODE = 2  # an actor and a reader


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The head node works on nothing, so that it can stay; the other two come and go."""

    server: S3Server
    proxy: Proxy
    kosmos2: Kosmos2
    nodes: list[Node]

    def actors_on(self, node: Node) -> list[psutil.Process]:
        family = set(psutil.Process(node.pid).children(recursive=True))
        return [worker for worker in ray_workers(self.kosmos2, "Annotate") if worker in family]

    def lose(self, node: Node) -> None:
        self.nodes.remove(node)
        end_node(node)

    def join(self) -> None:
        self.nodes.append(join_node(self.kosmos2, cpus=CPUS_PER_NODE))


@contextmanager
def running_world(server: S3Server) -> Iterator[World]:
    with running_proxy(server.endpoint_url, stall_s=3) as proxy:
        environment = {**server.environment, "AWS_ENDPOINT_URL": proxy.endpoint_url}
        with running_cluster(environment, cpus=0) as kosmos2:
            world = World(server=server, proxy=proxy, kosmos2=kosmos2, nodes=[])
            try:
                world.join()
                world.join()
                yield world
            finally:
                for node in world.nodes:
                    end_node(node)
