"""`kosmos2 model`: checkpoints of models."""

from typing import Annotated

from cyclopts import Parameter

from jobs.terminal import print_results
from pipeline.exit_codes import ExitCode


def fetch_command(
    model: Annotated[
        str,
        Parameter(help="Hub id (owner/name[@revision]), directory, or URL of a folder."),
    ],
    dest: Annotated[
        str, Parameter(help="Directory, prefix of a bucket or fsspec URL; new, empty or cut off.")
    ],
    /,
) -> int:
    """Copy a model to DEST, so that jobs need no Hub: `annotate --model DEST`.

    ```
    kosmos2 model fetch microsoft/kosmos-2-patch14-224 s3://bucket/models/kosmos-2
    kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ --model s3://bucket/models/kosmos-2
    ```

    Credentials come from the standard environment of the store. A fetch that was cut off continues
    with the same command. DEST also gets kosmos2-model.json, with the digest of the weights, which
    each node checks when it has fetched them.
    """
    from pipeline.models.fetching import fetch_model

    fetched = fetch_model(model, dest)
    if fetched.files:
        print_results(
            f"wrote {fetched.files} files, {fetched.size_bytes / 1e6:.1f} MB: {fetched.uri}"
        )
    else:
        print_results(f"the model is there already: {fetched.uri}")
    return ExitCode.DONE
