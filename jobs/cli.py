"""The `kosmos2` command."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from jobs import dataset_commands, evaluate_commands, job_commands, page_commands
from jobs.commands import bench as cli_bench
from jobs.logs import begin_logging, is_json, log_as
from jobs.options.flags import flag_name, shown_default, shown_error
from jobs.options.places import check_folder, check_new_file, check_new_folder
from jobs.remote.naming import job_name
from jobs.streams import OutputLost, open_streams
from kosmos2_core.errors import KosmosError
from pipeline.concurrency import is_any_waiting
from pipeline.errors import LeaseHeld, LeaseLost, PipelineError, SpecError, Stalled
from pipeline.exit_codes import ExitCode
from pipeline.exports.options import ExportOptions
from pipeline.logs import LogFormat
from pipeline.spec.access import OutputAccess
from pipeline.spec.job import JobOptions, RetryOptions
from pipeline.storage.objects import is_text

app = App(
    name="kosmos2",
    help="Turn image collections into grounded-caption datasets with Kosmos-2, on Ray.",
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # it has an exit code of ours
    error_formatter=shown_error,
    default_parameter=Parameter(negative=(), name_transform=flag_name, show_default=shown_default),
)
DEBUG_VARIABLE = "KOSMOS2_DEBUG"
_log = logging.getLogger(__name__)
_errors = Console(stderr=True, soft_wrap=True)

_OPTIONS = Annotated[JobOptions, Parameter(name="*")]
_EXPORT = Annotated[ExportOptions, Parameter(name="*")]
_RETRY = Annotated[RetryOptions, Parameter(name="*")]
_ACCESS = Annotated[OutputAccess, Parameter(name="*")]


@app.command
def annotate(
    input: str | None = None,
    output: str | None = None,
    /,
    *,
    options: _OPTIONS = JobOptions(),  # noqa: B008
    config: Path | None = None,
    print_config: bool = False,
    log_format: LogFormat = "text",
) -> int:
    """Annotate every image of the shards under INPUT into Parquet under OUTPUT.

    The same command again resumes: finished shards are neither read nor written again.

    ```
    kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ \\
        --model microsoft/kosmos-2-patch14-224
    ```

    Exit codes: 0 all shards committed, 2 wrong usage, 3 some shards failed, 4 another run is at
    work on OUTPUT, 5 stalled, 7 stopped on request, 1 anything else.

    Parameters
    ----------
    input
        Directory, s3:// prefix or any fsspec URL: docs/inputs.md.
    output
        Directory or s3:// prefix of the dataset.
    config
        YAML file with any of these options and `input` and `output`; flags win over it.
    print_config
        Write such a file to the standard output, instead of annotating anything.
    log_format
        `json`: one object a line on the standard error, with job and shard.
    """
    from jobs.commands.annotate import annotate_and_report
    from jobs.options.job_file import job_spec, to_yaml

    spec = job_spec(input, output, options, config)
    if print_config:
        print(to_yaml(spec), end="")
        return ExitCode.DONE
    log_as(log_format, job_name(spec.output, spec.part))
    return annotate_and_report(spec)


@app.command
def retry(
    output: str,
    /,
    *,
    options: _RETRY = RetryOptions(),  # noqa: B008
    log_format: LogFormat = "text",
) -> int:
    """Annotate again what failed under OUTPUT, as its job.json says.

    Failed shards are tried as if they never had been. With --samples, committed shards that hold
    rejected samples are rewritten: those samples get their annotations, no other row changes.

    ```
    kosmos2 retry s3://bucket/out/
    kosmos2 retry s3://bucket/out/ --samples --error-type non_finite_logits
    ```

    Exit codes: 0 all of it was done (a sample may be rejected again), otherwise as `annotate`.

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    log_format
        `json`: one object a line on the standard error, with job and shard.
    """
    from jobs.commands.annotate import retry_and_report

    log_as(log_format, job_name(output))
    return retry_and_report(output, options)


@app.command
def status(
    output: str,
    /,
    *,
    json: bool = False,
    watch: bool = False,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Show how far the dataset under OUTPUT is, while a run is at it and after a crash.

    ```
    kosmos2 status s3://bucket/out/ --watch
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    json
        Print one JSON object instead of a table; with --watch, one a line.
    watch
        Look again every 5 s, or less often where a look takes long, until the run is over.
    """
    from jobs.commands.status import print_status, watch_status

    show = watch_status if watch else print_status
    show(output, access.output_storage, as_json=json)
    return ExitCode.DONE


@app.command
def verify(
    output: str,
    /,
    *,
    input: str | None = None,
    fix: bool = False,
    json: bool = False,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Read the whole dataset under OUTPUT and say what is wrong with it.

    ```
    kosmos2 verify s3://bucket/out/ --input s3://bucket/shards/
    kosmos2 verify s3://bucket/out/ --fix
    ```

    Exit codes: 0 nothing is wrong, 6 something is (and --fix did not mend it), 4 another run is
    at work on OUTPUT and --fix leaves it alone, 2 wrong usage, 1 anything else.

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    input
        Compare the plan with what is there now, too.
    fix
        Delete what nobody needs (orphaned rejects, partial files, outdated failures) and commits
        that cannot be read, which `annotate` then makes anew; make the ledger anew.
    json
        Print one JSON object instead of a table.
    """
    from jobs.commands.verify import verify_and_report

    return verify_and_report(
        output, access.output_storage, input_uri=input, is_fixing=fix, as_json=json
    )


app.command(job_commands.plan)
app.command(job_commands.submit)
app.command(job_commands.stop)
app.command(page_commands.report)
app.command(dataset_commands.stats)
app.command(dataset_commands.dedup)
app.command(
    dataset_commands.filter_command,
    name="filter",
    default_parameter=Parameter(negative=None, negative_iterable=()),
)


@app.command
def view(
    output: str,
    /,
    *,
    html: Path = Path("contact-sheet.html"),
    count: int = 60,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Write a contact sheet of OUTPUT: one HTML file, images with their boxes, no server needed.

    ```
    kosmos2 view s3://bucket/out/ --html sheet.html --count 100
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    html
        Where to write the page.
    count
        How many annotations to show, spread over the dataset.
    """
    from jobs.view import write_contact_sheet

    check_new_file(html)
    write_contact_sheet(output, access.output_storage, html=html, count=count)
    return ExitCode.DONE


@app.command(default_parameter=Parameter(negative=None, negative_iterable=()))
def export(output: str, dest: str, /, *, options: _EXPORT) -> int:
    """Write the committed annotations under OUTPUT in another format, for another tool.

    ```
    kosmos2 export s3://bucket/out/ s3://bucket/coco/ --format coco --images embed
    ```

    DEST/_EXPORT.json says, in the end, that the export is complete and what it holds.

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset.
    dest
        Directory or s3:// prefix of the export; empty, or an earlier export to --overwrite.
    """
    from jobs.commands.export import export_and_report

    export_and_report(output, dest, options)
    return ExitCode.DONE


@app.command
def demo(directory: Path = Path("demo"), /, *, shards: int = 2, images: int = 60) -> int:
    """Make small shards of drawn scenes, annotate them with the embedded model, show the result.

    ```
    kosmos2 demo
    ```

    Parameters
    ----------
    directory
        Where the shards, the dataset and the contact sheet go. Run again to see it resume.
    shards
        How many shards to make.
    images
        Images per shard.
    """
    from jobs.commands.demo import run_demo

    check_new_folder(directory)
    return run_demo(directory, shards=shards, images=images)


bench = App(name="bench", help="Measure on this machine, as ratios.")
app.command(bench)
cli_bench.add_to(bench)


@bench.command(name="images")
def bench_images(*, images: int = 24, rounds: int = 7, json: Path | None = None) -> int:
    """Time encoded bytes to 224x224 pixels against the Hugging Face processor, on one thread.

    Parameters
    ----------
    images
        Pictures of 1024x768, made up with the spectrum of photographs.
    rounds
        Interleaved pairs; medians are shown.
    json
        Write the figures there, too.
    """
    from jobs.bench import images as bench_images

    check_new_file(json)
    bench_images.bench_images(images=images, rounds=rounds, json_path=json)
    return ExitCode.DONE


@bench.command(name="engine")
def bench_engine(
    *,
    full: bool = False,
    images: int | None = None,
    pairs: int = 3,
    ngram: int = 0,
    json: Path | None = None,
) -> int:
    """Time our engine against Hugging Face's `generate`, token for token, on one thread.

    A model with random weights and the real one's proportions; both sides give answers of the
    same lengths, in turn. Takes a quarter of an hour on a machine that does nothing else.

    Parameters
    ----------
    full
        8 images per slot instead of 4.
    images
        As many instead, for a quick look; fewer than 4 per slot flatter Hugging Face.
    pairs
        How often both sides do the same work in turn; medians are shown.
    ngram
        Ban repeated n-grams of that size, on both sides; 0 bans none.
    json
        Write the figures there, too.
    """
    from jobs.bench.engine.engine import Setup, bench_engine

    check_new_file(json)
    count = images or (128 if full else 64)
    setup = Setup(images=count, pairs=pairs, ngram_size=ngram)
    return ExitCode.DONE if bench_engine(setup, json) else ExitCode.ERROR


@bench.command(name="pipeline")
def bench_pipeline(*, shards: int = 12, images: int = 250, json: Path | None = None) -> int:
    """Run the whole job around a model that only takes its time: how busy is the model kept?

    With 10 ms and with 2 ms per image, on a Ray of this machine; takes two minutes.

    Parameters
    ----------
    shards
        Shards to make, of drawn scenes as JPEG.
    images
        Images per shard.
    json
        Write the figures there, too.
    """
    from jobs.bench import pipeline as bench_pipeline

    check_new_file(json)
    bench_pipeline.bench_pipeline(shards=shards, images=images, json_path=json)
    return ExitCode.DONE


evaluate = App(name="evaluate", help="Check a model's annotations against a known truth.")
app.command(evaluate)


@evaluate.command(name="shapes")
def evaluate_shapes(
    *, model: Path | None = None, scenes: int = 1500, json: Path | None = None
) -> int:
    """Evaluate the embedded checkpoint on drawn scenes that it never saw, task by task.

    On a split that is hard on purpose, tell how well each score ranks right boxes above wrong ones.
    Takes some minutes.

    Parameters
    ----------
    model
        Folder of another checkpoint of the shapes world.
    scenes
        How many scenes, besides those of the hard split.
    json
        Write the figures there, too.
    """
    from jobs import evaluate

    check_folder(model)
    check_new_file(json)
    evaluate.evaluate_shapes(model=model, scenes=scenes, json_path=json)
    return ExitCode.DONE


evaluate.command(evaluate_commands.flickr30k)
evaluate.command(evaluate_commands.refcoco)


def main() -> None:
    """Entry point of the `kosmos2` command."""
    open_streams()
    begin_logging()
    # A spot notice or `ray job stop` ends the run as Ctrl-C does: what is ready is committed and
    # the lease given back, as far as the time allows. Nothing depends on it.
    signal.signal(signal.SIGTERM, _interrupt)
    code = run_command(sys.argv[1:])
    if is_any_waiting():
        # A run that ended early: Ray's farewell crashes now and then where its threads still wait
        # for rows. It cleans up after a driver that is gone all the same.
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code. An error is one line on stderr."""
    try:
        _check_working_directory()
        _check_text(arguments)
        code = app(arguments, exit_on_error=False, result_action="return_value")
        if sys.stdout is not None:
            sys.stdout.flush()
    except CycloptsError:
        return ExitCode.USAGE  # cyclopts has said what is wrong
    except (LeaseHeld, LeaseLost) as error:
        return _fail(error, ExitCode.HELD)
    except Stalled as error:
        return _fail(error, ExitCode.STALLED)
    except PipelineError as error:
        return _fail(error, ExitCode.ERROR if error.retriable else ExitCode.USAGE)
    except KosmosError as error:  # of a model or picture that was named on the command line
        return _fail(error, ExitCode.USAGE)
    except OutputLost as error:
        return ExitCode.CLOSED_PIPE if error.is_closed_pipe else _fail(error, ExitCode.ERROR)
    except OSError as error:
        return _refused(error)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command takes it up again", ExitCode.STOPPED)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        said = " ".join([type(error).__name__ + ":", *str(error).splitlines()[:1]])
        return _fail(
            f"this is a bug in kosmos2: {said}; please report it, with the traceback that "
            f"{DEBUG_VARIABLE}=1 shows",
            ExitCode.ERROR,
        )
    return int(code or ExitCode.DONE)


def _check_working_directory() -> None:
    """Raise SpecError if it is gone: libraries that we load, as torch's, would end the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise SpecError(
            f"the working directory cannot be used ({error.strerror}): change to another one"
        ) from error


def _check_text(arguments: list[str]) -> None:
    """Raise SpecError for an argument that job.json could not keep."""
    for argument in arguments:
        if "\0" in argument or not is_text(argument):
            raise SpecError(f"the argument {argument!a} is no UTF-8 text: use another name")


def _refused(error: OSError) -> int:
    """Say which file of this machine, as of --html or --json, could not be read or written."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return _fail(f"{error.filename}: {reason}: name another place", ExitCode.USAGE)
    return _fail(f"{reason}: mend that, and run the same command again", ExitCode.ERROR)


def _fail(error: Exception | str, code: ExitCode) -> int:
    if is_json():
        _log.error("%s", error, extra={"exit_code": int(code)})
    else:
        _errors.print(f"kosmos2: {error}", markup=False, highlight=False, style="red")
    return code


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
