"""Buckets of Google Cloud Storage: gs://bucket/path.

google-auth (the extra `gcs`) finds the credentials where all tools of Google Cloud do; without that
package obstore reads the same files, or asks the machine for its service account.
"""

import os
from collections.abc import Callable
from datetime import UTC
from typing import TYPE_CHECKING

from pipeline.storage.objects import ANONYMOUS, StorageOptions

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, GCSCredential, GCSStore

# Credentials that obstore reads.
_KNOWN = (
    *("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    *("GOOGLE_BEARER_TOKEN", "GOOGLE_SKIP_SIGNATURE"),
)
_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


def open_bucket(bucket: str, options: StorageOptions, client: "ClientConfig") -> "GCSStore":
    """Open a bucket, without a request."""
    from obstore.store import GCSStore

    config: GCSConfig = {}
    if options.is_on("anonymous"):
        config["skip_signature"] = True
    if options.endpoint_url:
        config["base_url"] = options.endpoint_url
    if project := options.setting("user_project"):
        client = {**client, "default_headers": {"x-goog-user-project": project}}
    is_known = options.is_on("anonymous") or any(map(os.environ.get, _KNOWN))
    provider = None if is_known else _default_credentials()
    return GCSStore(
        bucket,
        config=config,
        client_options=client,
        retry_config={"max_retries": 0},
        credential_provider=provider,
    )


def google_credentials(options: StorageOptions) -> str:
    """Return where the credentials come from: the name of a variable, or of who finds them."""
    if options.is_on("anonymous"):
        return ANONYMOUS
    if name := next(filter(os.environ.get, (*_KNOWN, _FILE)), None):
        return name
    if _default_credentials() is None:
        return "gcloud's file or the service account of this machine"
    return "google-auth"


def _default_credentials() -> "Callable[[], GCSCredential] | None":
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport.requests import Request
    except ImportError:
        return None
    try:
        found, _ = google.auth.default(scopes=[_SCOPE])
    except DefaultCredentialsError:
        return None

    def token() -> "GCSCredential":
        if not found.valid:
            found.refresh(Request())  # type: ignore[no-untyped-call]
        ends = found.expiry and found.expiry.replace(tzinfo=UTC)
        return {"token": str(found.token), "expires_at": ends}

    return token
