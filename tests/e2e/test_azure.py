"""A job from Azure to Azure: Azurite, and a Ray cluster of its own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import AzureStore

from tests.support.azurite import Azurite
from tests.support.bucket import IMAGES
from tests.support.cluster import running_cluster

pytestmark = pytest.mark.slow


def test_a_job_from_azure_to_azure(azurite: Azurite, container: str, scenes: Path) -> None:
    plain = azurite.container(container)
    for path in sorted(scenes.glob("*.tar"))[:2]:
        plain.put(f"in/{path.name}", path)
    source, out = f"az://{container}/in/", f"az://{container}/out/"
    with running_cluster(azurite.environment) as kosmos2:
        job = ("annotate", source, out, "--samples-per-shard", "100")
        done = kosmos2.run(*job, "--limit", "1")
        assert done.returncode == 0, done.stderr
        first = _commits(plain)
        assert len(first) == 1
        done = kosmos2.run(*job)
        assert done.returncode == 0, done.stderr
        assert first.items() < _commits(plain).items()  # what was committed stayed as it was
        rows = [
            row for key in _commits(plain) for row in pq.read_table(_file(plain, key)).to_pylist()
        ]
        assert len({(row["shard_id"], row["index"]) for row in rows}) == len(rows) == 2 * IMAGES
        verified = kosmos2.run("verify", out, "--input", source)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert azurite.key not in done.stderr + verified.stdout


def _commits(plain: AzureStore) -> dict[str, str | None]:
    found = [each for page in plain.list("out/annotations") for each in page]
    return {each["path"]: each["e_tag"] for each in found}


def _file(plain: AzureStore, key: str) -> pa.BufferReader:
    return pa.BufferReader(plain.get(key).bytes())
