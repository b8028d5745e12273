"""`kosmos2 check`: check the engine on this machine."""

from pathlib import Path

from jobs.options.groups import AsJson
from jobs.options.places import check_new_file
from jobs.terminal import print_json, print_message, print_results
from pipeline.exit_codes import ExitCode


def check_command(
    *,
    model: str = "random",
    device: str = "auto",
    minutes: float = 8.0,
    output: Path | None = None,
    json: AsJson = False,
) -> int:
    """Check the engine on this machine, and say which options to set. Run it first on a new one.

    ```
    kosmos2 check --output check.json
    kosmos2 check --model microsoft/kosmos-2-patch14-224 --device cuda --json
    ```

    Tokens are compared with Hugging Face's. Without Ray, run `python -m kosmos2_core.check`.

    Parameters
    ----------
    model
        Model checkpoint: a Hub id, a directory, a URL of a folder, `shapes` or `random`. `random`
        has random weights and the size of the published model on CUDA; on a CPU it is small.
    device
        Device of the model: `auto`, `cpu`, `cuda` or `cuda:N`.
    minutes
        Limit of time in minutes, shared among the parts. A part that does not fit is skipped.
    output
        File for the results. It is written after each part, so a run that is cut off still tells.
    """
    check_new_file(output)
    from transformers.utils.logging import disable_progress_bar

    from kosmos2_core.check.context import RANDOM
    from kosmos2_core.check.run import CheckOptions, run_check
    from pipeline.models.staging import stage_model

    disable_progress_bar()
    options = CheckOptions(
        model=model if model == RANDOM else stage_model(model),
        device=device,
        minutes=minutes,
        output=output,
    )
    report = run_check(options, print_message if json else print_results)
    if json:
        print_json(report.body())
    return ExitCode.DONE if report.is_right else ExitCode.ERROR
