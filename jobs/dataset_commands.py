"""The commands about a finished dataset: what is in it, and better ones made of it."""

from typing import Annotated

from cyclopts import Parameter

from pipeline.derived.options import DedupOptions, FilterOptions
from pipeline.exit_codes import ExitCode
from pipeline.spec.access import OutputAccess

_ACCESS = Annotated[OutputAccess, Parameter(name="*")]
_DEDUP = Annotated[DedupOptions, Parameter(name="*")]
_FILTER = Annotated[FilterOptions, Parameter(name="*")]


def stats(
    output: str,
    /,
    *,
    json: bool = False,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Count what is in the dataset under OUTPUT: images, entities, boxes, scores, flags, phrases.

    All that is committed is read once; `kosmos2 report` draws the same.

    ```
    kosmos2 stats s3://bucket/out/
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset; finished or not.
    json
        Print one JSON object instead of tables.
    """
    from jobs.commands.stats import print_stats

    print_stats(output, access.output_storage, as_json=json)
    return ExitCode.DONE


def filter_command(output: str, dest: str, /, *, options: _FILTER = FilterOptions()) -> int:  # noqa: B008
    """Make a dataset of what meets the conditions: fewer boxes, entities and annotations.

    Boxes come first, then entities, then annotations: --where sees what is left. An entity goes
    with its last box; an annotation goes only if a condition on annotations says so. What was
    dropped is a rejection in DEST, whose _DERIVED.json counts it. The same command resumes.

    ```
    kosmos2 filter s3://bucket/out/ s3://bucket/good/ --min-score 0.5 \\
        --without-issue truncated --where "box_count BETWEEN 1 AND 20"
    kosmos2 filter out/ good/ --where-box "score * exp(phrase_logprob) >= 0.4" \\
        --where-entity "phrase NOT ILIKE '%man%'" --where "metadata->>'license' = 'by'"
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset; finished or not.
    dest
        Directory or s3:// prefix of the new one.
    """
    from jobs.commands.derive import filter_and_report

    filter_and_report(output, dest, options)
    return ExitCode.DONE


def dedup(output: str, dest: str, /, *, options: _DEDUP = DedupOptions()) -> int:  # noqa: B008
    """Make a dataset with one of each picture: copies go, and name the one that stays.

    What was dropped is a rejection in DEST, whose _DERIVED.json counts it. The same command
    resumes, as long as nothing was added to OUTPUT.

    ```
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/ --near 4
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset; finished or not.
    dest
        Directory or s3:// prefix of the new one.
    """
    from jobs.commands.derive import dedup_and_report

    dedup_and_report(output, dest, options)
    return ExitCode.DONE
