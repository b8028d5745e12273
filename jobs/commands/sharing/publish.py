"""`kosmos2 publish`: an export on the Hugging Face hub."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from jobs.options.groups import named_dataset, with_flags
from jobs.terminal import print_message
from pipeline.errors import PipelineError, SpecError
from pipeline.exit_codes import ExitCode
from pipeline.exports.publishing.options import PublishOptions
from pipeline.exports.publishing.upload import Upload, note_publication, upload_of

if TYPE_CHECKING:
    from pipeline.storage import OutputStore

_Export = Annotated[str, Parameter(help="Local directory of a finished export.")]
_Repository = Annotated[
    str, Parameter(help="Dataset of the hub, as owner/name. It is created if it does not exist.")
]


@with_flags
def publish_command(export: _Export, repository: _Repository, /, *, options: PublishOptions) -> int:
    """Put the finished export EXPORT into the dataset repository REPOSITORY of the hub.

    ```
    kosmos2 publish hf/ me/captions --private
    ```

    The token is that of HF_TOKEN or of `hf auth login`. The same command resumes: only what the
    repository lacks is sent. EXPORT's README is the dataset card.
    """
    from pipeline.exports.publishing.hub import check_repository_name, publish_upload

    check_repository_name(repository)
    _ = options.visibility  # refused before anything is read
    upload = upload_of(export)
    dataset = None if options.no_record else _source(upload, options)
    _show(upload, repository, options)
    if options.dry_run:
        print_message("nothing was sent: --dry-run")
        return ExitCode.DONE
    publication = publish_upload(upload, repository, options)
    print_message(f"published: {publication.url}")
    if dataset is not None:
        print_message(f"noted in {dataset.uri}/{note_publication(dataset, publication)}")
    return ExitCode.DONE


def _source(upload: Upload, options: PublishOptions) -> "OutputStore":
    """Return the dataset that the export was made of. Raises SpecError if it is no longer there."""
    try:
        dataset = named_dataset(upload.source, options)
    except PipelineError as error:
        raise SpecError(
            f"the publication cannot be noted in the dataset that {upload.folder} was made of: "
            f"{error}; or leave the note out with --no-record"
        ) from error
    if dataset.record.fingerprint != upload.record.details.get("fingerprint"):
        raise SpecError(
            f"{upload.source} is no longer the dataset that {upload.folder} was made of; export "
            "again, or leave the note out with --no-record"
        )
    return dataset.store


def _show(upload: Upload, repository: str, options: PublishOptions) -> None:
    if options.dry_run:
        for path, size in upload.sizes.items():
            print_message(f"{decimal(size):>10}  {path}")
    images = "with images" if upload.has_images else "without images"
    print_message(
        f"{len(upload.sizes)} files, {decimal(upload.size_bytes)}, {upload.record.format}, "
        f"{images} -> {options.visibility} dataset {repository}, branch {options.revision}"
    )
