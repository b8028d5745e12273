"""The `kosmos2` command: the table of its commands, and its exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError, Group, Parameter

from jobs.logs import begin_logging, is_json
from jobs.options.flags import flag_name, shown_default, shown_error
from jobs.options.places import check_text, check_working_directory
from jobs.streams import OutputLost, open_streams
from jobs.terminal import print_message
from kosmos2_core.errors import KosmosError
from pipeline.concurrency import is_any_waiting
from pipeline.errors import LeaseHeld, LeaseLost, PipelineError, Stalled
from pipeline.execution.environment import prepare_environment
from pipeline.exit_codes import ExitCode
from pipeline.version import our_version

# Command -> the function in jobs/commands that it calls, and its line in the list of commands.
COMMANDS = {
    "plan": ("plan:plan_command", "Show what there is to annotate, and estimate the job."),
    "annotate": ("annotate:annotate_command", "Annotate images into a dataset, or resume."),
    "submit": ("submit:submit_command", "Run annotate on a Ray cluster, through its job server."),
    "status": ("status:status_command", "Show how far a dataset is."),
    "stop": ("status:stop_command", "Ask the run that is writing a dataset to stop."),
    "retry": ("annotate:retry_command", "Retry failed shards or rejected samples."),
    "verify": ("verify:verify_command", "Find and mend the defects of a dataset."),
    "stats": ("stats:stats_command", "Count images, entities, boxes, scores, flags, phrases."),
    "diff": ("stats:diff_command", "Compare two datasets: captions, boxes, scores, flags."),
    "view": ("report:view_command", "Write a contact sheet: images with their boxes."),
    "report": ("report:report_command", "Write a report with figures, and a contact sheet."),
    "filter": ("derive:filter_command", "Make a dataset of annotations that meet conditions."),
    "dedup": ("derive:dedup_command", "Make a dataset with one copy of each image."),
    "export": ("export:export_command", "Write a dataset in another format."),
    "publish": ("sharing.publish:publish_command", "Put an export on the Hugging Face hub."),
    "sample": ("sharing.sample:sample_command", "Choose boxes for people to judge."),
    "review import": ("sharing.review:import_command", "Read what people said about boxes."),
    "review report": (
        "sharing.review:review_report_command",
        "Show precisions by judgements.",
    ),
    "doctor": ("machine.doctor:doctor_command", "Check all that a job needs before it starts."),
    "check": ("machine.check:check_command", "Check the engine on this machine; say what to set."),
    "model fetch": ("model:fetch_command", "Copy a model to a bucket or directory."),
    "demo": ("demo:demo_command", "Draw scenes, annotate them, show the result."),
    "evaluate shapes": ("evaluate:shapes_command", "Evaluate the embedded model on drawn scenes."),
    "evaluate flickr30k": ("evaluate:flickr30k_command", "Evaluate phrase grounding."),
    "evaluate refcoco": ("evaluate:refcoco_command", "Evaluate referring expressions."),
    "bench images": ("bench:images_command", "Time image decoding against Hugging Face."),
    "bench decode": ("bench:decode_command", "Time fast decoding of large images against exact."),
    "bench reader": ("bench:reader_command", "Measure what a reader costs per image, by part."),
    "bench engine": ("bench:engine_command", "Time the engine against Hugging Face."),
    "bench host": ("bench:host_command", "Measure the host's work beside the device."),
    "bench pipeline": ("bench:pipeline_command", "Measure how busy a job keeps its model."),
    "bench scale": ("bench:scale_command", "Measure how jobs scale with the number of shards."),
    "bench actors": ("bench:actors_command", "Measure how a job scales with the number of actors."),
    "bench driver": ("bench:driver_command", "Measure how many images one driver can handle."),
    "bench soak": ("bench:soak_command", "Measure whether a long run leaks."),
}
_GROUPS = {
    "review": "Judgements of people about boxes.",
    "model": "Put a model where jobs can read it.",
    "evaluate": "Evaluate a model against known answers.",
    "bench": "Measure on this machine, as ratios.",
}
_DEBUG_VARIABLE = "KOSMOS2_DEBUG"
_log = logging.getLogger(__name__)


def app_for(arguments: Sequence[str] = ()) -> App:
    """Return the command line. The module of a command is imported when the command is called.

    A command among `arguments` gets the help of its docstring, the others their line of the table.
    """
    app = App(
        name="kosmos2",
        help="Turn image collections into grounded-caption datasets with Kosmos-2, on Ray.",
        help_format="markdown",
        version=our_version,
        suppress_keyboard_interrupt=False,  # it has an exit code of ours
        error_formatter=shown_error,
        group_parameters=Group("Options", sort_key=-1),
        default_parameter=Parameter(
            negative=(), name_transform=flag_name, show_default=shown_default
        ),
    )
    for command, (function, summary) in COMMANDS.items():
        group, _, name = command.rpartition(" ")
        if group and group not in app:
            app.command(App(name=group, help=_GROUPS[group]))
        (app[group] if group else app).command(
            f"jobs.commands.{function}", name=name, help=None if name in arguments else summary
        )
    return app


def main() -> None:
    """Entry point of the `kosmos2` command."""
    prepare_environment()
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


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. An error is one line on stderr."""
    try:
        check_working_directory()
        check_text(arguments)
        app = app_for(arguments)
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
    except KosmosError as error:  # of a model or image that was named on the command line
        return _fail(error, ExitCode.USAGE)
    except OutputLost as error:
        return ExitCode.CLOSED_PIPE if error.is_closed_pipe else _fail(error, ExitCode.ERROR)
    except OSError as error:
        return _refused(error)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to resume", ExitCode.STOPPED)
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE):
            raise
        said = " ".join([type(error).__name__ + ":", *str(error).splitlines()[:1]])
        return _fail(
            f"this is a bug in kosmos2: {said}; please report it, with the traceback that "
            f"{_DEBUG_VARIABLE}=1 shows",
            ExitCode.ERROR,
        )
    return int(code or ExitCode.DONE)


def _refused(error: OSError) -> int:
    """Say which file of this machine, as of --html or --json, could not be read or written."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return _fail(f"{error.filename}: {reason}; name another file or folder", ExitCode.USAGE)
    return _fail(f"{reason}; remove the cause, then run the same command again", ExitCode.ERROR)


def _fail(error: Exception | str, code: ExitCode) -> int:
    if is_json():
        _log.error("%s", error, extra={"exit_code": int(code)})
    else:
        print_message(f"kosmos2: {error}", style="red")
    return code


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


app = app_for()

if __name__ == "__main__":
    main()
