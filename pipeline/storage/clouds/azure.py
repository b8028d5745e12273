"""Containers of Azure Blob Storage: az://container/path, abfs://container@account.host/path.

Keys and signatures come from the environment. Without one, azure-identity (the extra `azure`) looks
for an identity where all tools of Azure do; without that package obstore asks the machine for its
managed identity.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.errors import StorageUrlError
from pipeline.storage.objects import ANONYMOUS, StorageOptions

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken, AzureConfig, AzureStore, ClientConfig

# The names of obstore and of Azure's own command line.
_ACCOUNT = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
_KEY = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
    *("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
)
_SIGNATURE = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
_OTHERS = ("AZURE_STORAGE_TOKEN", "AZURE_SKIP_SIGNATURE", "AZURE_CREDENTIAL_TYPE")  # obstore's own
_ENDPOINT = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_SCOPE = "https://storage.azure.com/.default"


def open_container(bucket: str, options: StorageOptions, client: "ClientConfig") -> "AzureStore":
    """Open a container, without a request. Raises StorageUrlError if no account is named."""
    from obstore.store import AzureStore

    container, _, host = bucket.partition("@")
    account = host.partition(".")[0] or options.setting("account") or _first(_ACCOUNT)
    if not account:
        raise StorageUrlError(
            f"az://{container} needs the name of its storage account: set "
            "AZURE_STORAGE_ACCOUNT_NAME, or write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/"
        )
    provider: Callable[[], AzureBearerToken] | None = None
    config: AzureConfig = {"account_name": account}
    if options.is_on("anonymous"):
        config["skip_signature"] = True
    if options.endpoint_url:
        config["endpoint"] = options.endpoint_url
    elif "." in host and not _first(_ENDPOINT):
        config["endpoint"] = f"https://{host.replace('.dfs.', '.blob.', 1)}"
    is_known = options.is_on("anonymous") or _set(_OTHERS)
    if key := _first(_KEY):
        config["account_key"] = key
    elif signature := _first(_SIGNATURE):
        config["sas_key"] = signature.lstrip("?")
    elif not is_known:
        provider = _identity()
    return AzureStore(
        container,
        config=config,
        client_options=client,
        retry_config={"max_retries": 0},
        credential_provider=provider,
    )


def _identity() -> "Callable[[], AzureBearerToken] | None":
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return None
    chain = DefaultAzureCredential()

    def token() -> "AzureBearerToken":
        found = chain.get_token(_SCOPE)
        return {"token": found.token, "expires_at": datetime.fromtimestamp(found.expires_on, UTC)}

    return token


def azure_credentials(options: StorageOptions) -> str:
    """Return where the credentials come from: the name of a variable, or of who finds them."""
    if options.is_on("anonymous"):
        return ANONYMOUS
    if name := _set((*_KEY, *_SIGNATURE, *_OTHERS)):
        return name
    return "managed identity of this machine" if _identity() is None else "azure-identity"


def _set(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)


def _first(names: tuple[str, ...]) -> str | None:
    name = _set(names)
    return name and os.environ[name]
