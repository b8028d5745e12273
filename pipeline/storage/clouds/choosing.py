"""The choice of the client that serves a URL."""

from pipeline.storage.clouds.azure import azure_credentials
from pipeline.storage.clouds.client import Cloud
from pipeline.storage.clouds.contract import BucketClient
from pipeline.storage.clouds.google import google_credentials
from pipeline.storage.clouds.settings import check_store
from pipeline.storage.objects import AZURE_SCHEMES, GOOGLE_SCHEMES, Location, StorageOptions
from pipeline.storage.s3 import S3, s3_credentials


def bucket_client(at: Location, options: StorageOptions) -> BucketClient | None:
    """Return the client of a bucket; None if the URL is of no cloud."""
    if at.scheme == "s3":
        return S3(options)
    return Cloud(options) if at.scheme in (*AZURE_SCHEMES, *GOOGLE_SCHEMES) else None


def credentials_source(at: Location, options: StorageOptions) -> str | None:
    """Return where the credentials for a URL come from, never the credentials themselves.

    None if it needs none. Raises StorageRefused if S3 finds none; the other clouds say so when they
    are asked for something.
    """
    if at.scheme == "s3":
        return s3_credentials(options)
    if at.scheme in AZURE_SCHEMES:
        return azure_credentials(options)
    return google_credentials(options) if at.scheme in GOOGLE_SCHEMES else None


def check_options(at: Location, options: StorageOptions) -> None:
    """Raise StorageUrlError for a setting that the store of this URL does not take."""
    kinds = {**dict.fromkeys(AZURE_SCHEMES, "az"), **dict.fromkeys(GOOGLE_SCHEMES, "gs")}
    check_store(options.settings, kinds.get(at.scheme, at.scheme), at.uri)
