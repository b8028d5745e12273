"""`kosmos2 sample`: boxes for people to judge."""

from typing import Annotated

from cyclopts import Parameter

from jobs.options.groups import DatasetArgument, with_flags
from jobs.terminal import counting_bar, print_message
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.ledger import Ledger
from pipeline.errors import SpecError
from pipeline.exit_codes import ExitCode
from pipeline.review.options import SampleOptions
from pipeline.review.sampling import choose_boxes
from pipeline.review.tasks import INTERFACE_KEY, write_tasks
from pipeline.storage import InputStore, open_output

_Dest = Annotated[
    str, Parameter(help="Directory, or s3://, gs:// or az:// prefix, of the tasks. It is empty.")
]


@with_flags
def sample_command(output: DatasetArgument, dest: _Dest, /, *, options: SampleOptions) -> int:
    """Choose boxes of the dataset OUTPUT and write them to DEST as tasks for people to judge.

    Give a project of Label Studio DEST/interface.xml as its labelling interface, and import
    DEST/tasks/*.json. When people have judged, export the project as JSON and read the answers with
    `kosmos2 review import`.

    ```
    kosmos2 sample s3://bucket/out/ judge/ --by uncertain --count 300
    ```
    """
    dataset = open_dataset(output, options.output_storage)
    destination = open_output(dest, options.dest_storage)
    committed = Ledger(dataset.store).committed()
    shard_ids = [s.shard_id for s in dataset.plan.shards if s.shard_id in committed]
    with counting_bar() as observe:
        chosen = choose_boxes(
            dataset.store,
            shard_ids,
            by=options.by,
            count=options.count,
            seed=options.seed,
            observe=observe,
        )
    if not chosen:
        raise SpecError(f"{output} has no boxes of the model to judge; name another dataset")
    inputs = InputStore(dataset.record.spec.input_storage)
    tasks = write_tasks(dataset, inputs, destination, chosen, options)
    print_message(f"{len(chosen)} boxes in {tasks} tasks, chosen by {options.by}")
    print_message(f"tasks: {dest}, with {INTERFACE_KEY} for the project")
    return ExitCode.DONE
