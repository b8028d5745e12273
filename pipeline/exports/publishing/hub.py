"""The sending of an export to the hub, with an error for each reason that it can fail for.

The token is the one of HF_TOKEN or of `hf auth login`. It stays within huggingface_hub.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from kosmos2_core.checkpoint.files import BUSY_STATUSES
from kosmos2_core.errors import first_line
from pipeline.errors import PipelineError, SpecError, StorageError, StorageRefused
from pipeline.exports.publishing.options import PublishOptions
from pipeline.exports.publishing.upload import Publication, Upload

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
# All errors of the HTTP library, which differs between versions of huggingface_hub.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_DEFAULT_BRANCH = "main"
_LOG_IN = (
    "make a token with the role `write` at https://huggingface.co/settings/tokens, and set "
    "HF_TOKEN or run `hf auth login`"
)


def check_repository_name(name: str) -> None:
    """Raise SpecError unless the name is `owner/name`."""
    if _NAME.fullmatch(name) is None or len(name) > 96:
        raise SpecError(f"{name!r} is no repository of the hub; give it as owner/name")


def publish_upload(upload: Upload, name: str, options: PublishOptions) -> Publication:
    """Send an export to a dataset repository, which is created if it does not exist.

    Only what the repository lacks is sent. So the same call resumes one that was interrupted. Files
    of an earlier export of this kind that are no longer there are deleted in the first commit.

    Raises SpecError if the repository has another visibility, StorageRefused if the hub refuses,
    and StorageError if a later call may succeed.
    """
    api = HfApi(library_name="kosmos2-annotate")
    if get_token() is None:
        raise StorageRefused(f"no token for the hub at {api.endpoint}; {_LOG_IN}")
    with _clear_errors(api.endpoint, name):
        api.whoami()  # a token that is not valid gives a better error here than below
        _make_repository(api, name, options)
        commit = api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=upload.folder,
            revision=options.revision,
            commit_message=f"Publish an export: {upload.record.format}",
            allow_patterns=upload.patterns,
            delete_patterns=upload.patterns,
        )
    if re.fullmatch(r"[0-9a-f]{7,64}", commit.oid) is None:
        raise StorageError(
            f"the hub at {api.endpoint} answered with {commit.oid!r:.80}, which is no commit; run "
            "the same command again"
        )
    return Publication(
        repository=name,
        revision=options.revision,
        commit=commit.oid,
        url=f"{api.endpoint}/datasets/{name}/tree/{commit.oid}",
        visibility=options.visibility,
        export_id=upload.record.export_id,
        format=upload.record.format,
        files=len(upload.sizes),
        size_bytes=upload.size_bytes,
    )


def _make_repository(api: HfApi, name: str, options: PublishOptions) -> None:
    try:
        is_private = api.dataset_info(name).private
    except RepositoryNotFoundError:
        api.create_repo(name, repo_type="dataset", private=options.private, exist_ok=True)
        is_private = api.dataset_info(name).private
    if is_private != options.private:
        there = "private" if is_private else "public"
        raise SpecError(
            f"the dataset {name} of the hub is {there}; publish with --{there}, or change its "
            f"visibility to {options.visibility} in its settings first"
        )
    if options.revision != _DEFAULT_BRANCH:
        api.create_branch(name, repo_type="dataset", branch=options.revision, exist_ok=True)


@contextmanager
def _clear_errors(endpoint: str, name: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise StorageRefused(
            "HF_HUB_OFFLINE is set, so nothing can be sent to the hub; unset it"
        ) from error
    except HFValidationError as error:
        raise SpecError(f"{name!r} is no repository of the hub: {first_line(error)}") from error
    except (_HTTP_ERROR, RuntimeError, OSError, ValueError) as error:
        raise _clear(_cause(error), endpoint, name) from error


def _cause(error: BaseException) -> BaseException:
    """Return the answer of the hub, which its library wraps if it is about a large file."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _clear(error: BaseException, endpoint: str, name: str) -> PipelineError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    again = "run the same command again: it sends only what is missing"
    if status == 401:
        return StorageRefused(f"the hub at {endpoint} does not accept the token (401); {_LOG_IN}")
    if status == 403:
        return StorageRefused(
            f"the token may not write to {name} (403); use a token with the role `write` of a "
            f"member of {name.partition('/')[0]}, or publish under a name of your own"
        )
    if status == 404:
        return StorageRefused(
            f"the hub at {endpoint} does not know {name} (404); check the owner and the name"
        )
    if status == 429:
        return StorageError(f"the hub limits your requests (429); wait some minutes, then {again}")
    if status in BUSY_STATUSES:
        return StorageError(f"the hub at {endpoint} failed ({status}); wait, then {again}")
    if status is not None:
        return StorageRefused(
            f"the hub at {endpoint} refused to publish {name} ({status}): {first_line(error)}"
        )
    if isinstance(error, ValueError):  # the hub checks the front matter before anything is sent
        said = " ".join(str(error).split())
        return SpecError(f"the hub does not accept the export: {said}; correct its README.md")
    return StorageError(
        f"cannot send to the hub at {endpoint}: {first_line(error)}; check the network and "
        f"HF_ENDPOINT, then {again}"
    )
