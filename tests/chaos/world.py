"""Where the faults happen: three Ray nodes on this machine, and a store behind a proxy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.support.azurite import Azurite, Container
from tests.support.bucket import Bucket, JobBucket
from tests.support.cluster import (
    Kosmos2,
    Node,
    NodeKind,
    end_node,
    join_node,
    running_cluster,
    workers_on,
)
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server

WORKER = NodeKind(cpus=2)  # an actor and a reader
SHARDS, IMAGES = 4, 30  # of what all tests of faults annotate


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The head node works on nothing, so that it can stay; the others come and go."""

    server: S3Server | Azurite
    proxy: Proxy
    kosmos2: Kosmos2
    nodes: list[Node]

    def bucket(self, name: str) -> JobBucket:
        """A new one; `name` has at least three letters."""
        if isinstance(self.server, Azurite):
            return Container(name=self.server.make_container(name), server=self.server)
        return Bucket(name=self.server.make_bucket(name), server=self.server)

    def workers_on(self, node: Node, name: str) -> list[psutil.Process]:
        return workers_on(self.kosmos2, node, name)

    def lose(self, node: Node) -> None:
        self.nodes.remove(node)
        end_node(node)

    def join(self, kind: NodeKind = WORKER) -> None:
        self.nodes.append(join_node(self.kosmos2, kind))


@contextmanager
def running_world(
    server: S3Server | Azurite, kinds: Sequence[NodeKind] = (WORKER, WORKER)
) -> Iterator[World]:
    with (
        running_proxy(server.endpoint_url, stall_s=3) as proxy,
        running_cluster(server.through(proxy.endpoint_url).environment, cpus=0) as kosmos2,
    ):
        world = World(server=server, proxy=proxy, kosmos2=kosmos2, nodes=[])
        try:
            for kind in kinds:
                world.join(kind)
            yield world
        finally:
            for node in world.nodes:
                end_node(node)
