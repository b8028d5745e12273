"""What is checked of a cluster before a run reads on it."""

from dataclasses import replace

import pytest

from pipeline.driver.preflight import check_nodes_see
from pipeline.errors import SpecError
from tests.support.locally import LocalTables
from tests.support.tars import a_shard

TAR = a_shard("a")
LIST = replace(TAR, uri="s3://in/photos/", kind="files", listing="listings/0123.parquet", count=1)


@pytest.mark.parametrize(
    ("shard", "output", "blind_to", "said"),
    [
        (replace(TAR, uri="file:///in/a.tar"), "s3://b/out", "/in/a.tar", "put the input where"),
        (LIST, "file:///out", "/out/listings/0123.parquet", "put the output where"),
        (LIST, "s3://b/out", None, None),
        (TAR, "file:///out", None, None),
    ],
    ids=["a local input", "a list in a local output", "a list in a bucket", "only results"],
)
def test_local_paths_that_a_node_would_read_and_does_not_see_are_named(
    shard, output, blind_to, said
):
    asked = []

    class Blind(LocalTables):
        def nodes_without(self, path):
            asked.append(path)
            return ["node-1"]

    if said is None:
        check_nodes_see(Blind(), shard, output)
        assert asked == []
    else:
        with pytest.raises(SpecError, match=f"{blind_to} does not exist on 1 .*{said}"):
            check_nodes_see(Blind(), shard, output)
        assert asked == [blind_to]
