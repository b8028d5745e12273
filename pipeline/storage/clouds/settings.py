"""Settings of a store that have no flag of their own, as KEY=VALUE (`--output-storage-option`)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import StorageUrlError

_SWITCH = "true|false"
_SECRET = re.compile(
    r"secret|passw|token|signature|^sas|_sas|credential|access_?key|account_?key|private|^key$",
    re.I,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """A key: the kinds of stores that take it, and what its value matches."""

    stores: tuple[str, ...]  # s3, gs, az
    value: str
    example: str


SETTINGS = {
    "anonymous": _Setting(stores=("s3", "gs", "az"), value=_SWITCH, example="true"),
    "region": _Setting(stores=("s3",), value=r"[a-z0-9-]+", example="eu-west-1"),
    "requester_pays": _Setting(stores=("s3",), value=_SWITCH, example="true"),
    "sse": _Setting(stores=("s3",), value="AES256|aws:kms|aws:kms:dsse", example="aws:kms"),
    "sse_kms_key": _Setting(
        stores=("s3",), value=r"[\w/:-]+", example="arn:aws:kms:eu-west-1:111122223333:key/ID"
    ),
    "account": _Setting(stores=("az",), value=r"[a-z0-9]{3,24}", example="mystorageaccount"),
    "user_project": _Setting(stores=("gs",), value=r"[a-z0-9.:-]+", example="my-project"),
}


def check_settings(settings: Iterable[str]) -> None:
    """Raise StorageUrlError for one that is unknown, misspelt or a secret; repeat no value."""
    seen = set[str]()
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise StorageUrlError(
                "a storage option is not KEY=VALUE; write it as in "
                f"region={SETTINGS['region'].example}"
            )
        if key not in SETTINGS and _SECRET.search(key):
            raise StorageUrlError(
                f"the storage option {key} seems to be a credential, and job.json would show it; "
                "remove it, and set AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_KEY or "
                "GOOGLE_APPLICATION_CREDENTIALS in the environment, or name an AWS profile"
            )
        if key not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise StorageUrlError(f"the storage option {key} is unknown; use one of {known}")
        if not re.fullmatch(SETTINGS[key].value, value):
            raise StorageUrlError(
                f"the value of the storage option {key} is not valid; write it as in "
                f"{key}={SETTINGS[key].example}"
            )
        if key in seen:
            raise StorageUrlError(f"the storage option {key} is given twice; give it once")
        seen.add(key)


def check_store(settings: Iterable[str], store: str, uri: str) -> None:
    """Raise StorageUrlError for a setting that this kind of store does not take."""
    for key in (text.partition("=")[0] for text in settings):
        if store not in SETTINGS[key].stores:
            takes = ", ".join(name for name, each in SETTINGS.items() if store in each.stores)
            raise StorageUrlError(
                f"{uri} takes no storage option {key}; remove it (it takes {takes or 'none'})"
            )
