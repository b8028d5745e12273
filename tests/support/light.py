"""The `kosmos2` command with a model that only waits: `python -m tests.support.light annotate ...`.

Everything else is a real job, and its actors start without torch.
"""

from functools import partial

from pipeline.execution.environment import prepare_environment


def main() -> None:
    prepare_environment()  # before Ray is imported
    from jobs import cli
    from jobs.bench.light.model import LightModel
    from pipeline.driver import run

    run.RayTables = partial(run.RayTables, LightModel(image_cost_s=0.0))
    cli.main()


if __name__ == "__main__":
    main()
