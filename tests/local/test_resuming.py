"""What the same command does on an output that has something."""

from dataclasses import dataclass

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.locally import LocalCommand
from tests.support.s3 import S3Server
from tests.support.tars import pictures, tar

pytestmark = pytest.mark.usefixtures("light")


def test_other_settings_on_the_same_output_are_refused(
    bucket: Bucket, kosmos2: LocalCommand
) -> None:
    bucket.put("shards/one.tar", tar(pictures(2)))
    job = ("annotate", bucket.input, bucket.output)
    assert kosmos2.run(*job).returncode == 0
    refused = kosmos2.run(*job, "--exif", "ignore")
    assert refused.returncode == 2
    assert "exif" in refused.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run, and how many shards were committed after it."""

    returncode: int
    stderr: str
    committed: int
    is_success: bool


@pytest.fixture(scope="module")
def history(
    kosmos2: LocalCommand, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> list[Ended]:
    """Of three shards the first; the rest, with a fourth that is new and one that was overwritten
    since the plan; the fourth, too, with all as it was."""
    folder = tmp_path_factory.mktemp("history")
    paths = write_shards(folder, shards=4, images=10, seed=5)
    bucket = Bucket(name=s3_server.make_bucket("local-history"), server=s3_server)
    bucket.put_shards(folder, 3)
    history = []

    def annotate(*options: str) -> None:
        done = kosmos2.run("annotate", bucket.input, bucket.output, *options)
        history.append(
            Ended(
                returncode=done.returncode,
                stderr=done.stderr,
                committed=len(bucket.objects("out/annotations/")),
                is_success="out/_SUCCESS.json" in bucket.objects("out/"),
            )
        )

    annotate("--limit", "1")
    bucket.put("shards/shapes-00003.tar", paths[3].read_bytes())
    bucket.put("shards/shapes-00001.tar", paths[0].read_bytes())
    annotate()
    bucket.put("shards/shapes-00001.tar", paths[1].read_bytes())
    annotate("--extend")
    return history


def test_limit_leaves_the_rest_to_the_next_run(history: list[Ended]) -> None:
    limited, rest, _ = history
    assert (limited.returncode, limited.committed) == (0, 1), limited.stderr
    assert not limited.is_success
    assert rest.committed == 2


def test_input_overwritten_since_the_plan_fails_by_name(history: list[Ended]) -> None:
    _, rest, extended = history
    assert rest.returncode == 3
    assert "input_changed" in rest.stderr
    assert "shapes-00001" in rest.stderr
    assert not rest.is_success
    assert "input_changed" not in extended.stderr


def test_new_inputs_wait_for_extend(history: list[Ended]) -> None:
    limited, rest, extended = history
    assert "--extend" not in limited.stderr
    assert "--extend" in rest.stderr
    assert (extended.returncode, extended.committed) == (0, 4), extended.stderr
    assert extended.is_success
