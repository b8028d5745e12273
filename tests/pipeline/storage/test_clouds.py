"""Azure and Google Cloud: credentials, errors and retries, against servers on this machine."""

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.errors import StorageError, StorageRefused, StorageUrlError
from pipeline.storage import InputStore, StorageOptions, open_output
from pipeline.storage.clouds import client
from pipeline.storage.clouds.azure import open_container
from pipeline.storage.clouds.retries import RETRIES
from tests.support.azurite import Azurite
from tests.support.google_store import GoogleStore
from tests.support.proxy import running_proxy
from tests.support.s3 import S3Server

REFUSAL = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SECRET = "aHVzaCBodXNoIGh1c2g="  # "hush hush hush", a key that is not the right one


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_wrong_key_says_the_remedy_and_no_secret(
    container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    store = open_output(f"az://{container}/out", StorageOptions(settings=("account=testaccount",)))
    with pytest.raises(StorageRefused, match=r"access refused.*AZURE_STORAGE_ACCOUNT_KEY") as error:
        store.get("a")
    assert SECRET not in shown(error.value)


def test_a_signature_in_the_environment_is_never_shown(
    container: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes into the URL of each request, which obstore's errors repeat."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?sv=2021-12-02&sp=rl&sig=hush")
    monkeypatch.setattr(client, "_ATTEMPTS", 1)
    with pytest.raises(StorageRefused) as refused:
        open_output(f"az://{container}/signed").get("a")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/testaccount")
    with pytest.raises(StorageError, match="check the network and the endpoint URL") as unreached:
        open_output("az://unreached/signed").get("a")
    for error in (refused.value, unreached.value):
        assert "hush" not in shown(error)
        assert "sig=" not in shown(error)


def test_no_credentials_say_the_remedy(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore then asks the machine for an identity, which this one has not."""
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite.endpoint_url)
    monkeypatch.setenv("AZURE_MSI_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AZURE_CREDENTIAL_TYPE", "managed_identity")
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    store = open_output("az://nobody/out", StorageOptions(settings=("account=testaccount",)))
    with pytest.raises(StorageRefused, match=r"access refused.*AZURE_STORAGE_ACCOUNT_KEY"):
        store.get("a")


@pytest.mark.parametrize("fault", ["resets", "slow_downs", "cut_bodies"])
def test_a_request_that_fails_is_sent_again_and_counted(
    container: str, azurite: Azurite, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)
    data, before = os.urandom(10**5), RETRIES.total
    azurite.container(container).put("in/a", data)
    with running_proxy(azurite.endpoint_url, **{fault: 2}) as flaky:
        options = StorageOptions(endpoint_url=f"{flaky.endpoint_url}/{azurite.account}")
        assert InputStore(options).read_whole(f"az://{container}/in/a", max_bytes=10**6) == data
    assert RETRIES.total == before + 2


def test_reach_reports_within_few_attempts(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = StorageOptions(endpoint_url="http://127.0.0.1:9/testaccount")
    monkeypatch.setattr(client, "_ATTEMPTS", 99)
    with pytest.raises(StorageError, match="check the network and the endpoint URL"):
        InputStore(options).reach(f"az://{container}/in")
    InputStore().reach(f"az://{container}/in")
    InputStore().reach("az://no-such-container/in")


# ---- settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region", "not KEY=VALUE"),
        ("colour=red", "unknown; use one of anonymous, region"),
        ("region=hush hush", "the value of the storage option region is not valid"),
        ("secret_access_key=hush", "AWS_SECRET_ACCESS_KEY"),
        ("account_key=hush", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("sas_token=hush", "job.json would show it"),
    ],
)
def test_a_wrong_setting_is_refused_without_its_value(text: str, message: str) -> None:
    with pytest.raises(StorageUrlError, match=message) as refused:
        StorageOptions(settings=(text,))
    assert "hush" not in shown(refused.value)


def test_a_setting_is_given_once_and_to_a_store_that_takes_it(tmp_path: Path) -> None:
    with pytest.raises(StorageUrlError, match="given twice"):
        StorageOptions(settings=("region=a", "region=b"))
    options = StorageOptions(settings=("sse=AES256",))
    with pytest.raises(StorageUrlError, match=r"az://box/out takes no storage option sse"):
        open_output("az://box/out", options)
    with pytest.raises(StorageUrlError, match="takes no storage option sse"):
        InputStore(options).list(str(tmp_path))


def test_s3_is_sent_its_settings(s3_bucket: str, s3_server: S3Server) -> None:
    s3_server.client().put_object(Bucket=s3_bucket, Key="a", Body=b"one")
    settings = ("requester_pays=true", "region=eu-west-1", "sse=aws:kms", "sse_kms_key=my-key")
    with running_proxy(s3_server.endpoint_url, refuse_puts=REFUSAL) as proxy:
        options = StorageOptions(endpoint_url=proxy.endpoint_url, settings=settings)
        assert InputStore(options).read_whole(f"s3://{s3_bucket}/a", max_bytes=10) == b"one"
        assert InputStore(options).list(f"s3://{s3_bucket}/a").objects
        with pytest.raises(StorageRefused):
            open_output(f"s3://{s3_bucket}/out", options).put("a", b"two")
    assert all("x-amz-request-payer: requester" in head for head in proxy.heads)
    assert all("/eu-west-1/s3/" in head for head in proxy.heads)
    assert "x-amz-server-side-encryption: aws:kms" in proxy.heads[-1]
    assert "x-amz-server-side-encryption-aws-kms-key-id: my-key" in proxy.heads[-1]


def test_an_anonymous_reader_signs_nothing(s3_bucket: str, s3_server: S3Server) -> None:
    s3_server.client().put_object(Bucket=s3_bucket, Key="a", Body=b"one")
    with running_proxy(s3_server.endpoint_url) as proxy:
        options = StorageOptions(endpoint_url=proxy.endpoint_url, settings=("anonymous=true",))
        with pytest.raises(StorageRefused, match="access refused"):
            InputStore(options).read_whole(f"s3://{s3_bucket}/a", max_bytes=10)
    assert len(proxy.heads) == 2  # by obstore, and by s3fs
    assert not any("authorization:" in head for head in proxy.heads)


# ---- identities


@contextmanager
def token_server() -> Iterator[str]:
    """Gives the token "given" to whoever asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            answer = {"access_token": "given", "expires_in": 3600, "expires_on": "4102444800"}
            body = json.dumps({**answer, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_google_auth_finds_the_credentials(
    google_store: GoogleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_BEARER_TOKEN")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    google_store.put(f"{google_store.bucket}/a", b"one")
    with token_server() as url:
        account = {"type": "service_account", "client_email": "me@example.org"}
        account |= {"private_key": pem, "private_key_id": "1", "token_uri": url}
        (tmp_path / "key.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        uri = f"gs://{google_store.bucket}/a"
        assert InputStore().read_whole(uri, max_bytes=10) == b"one"
    assert google_store.authorizations == ["Bearer given"]


def test_azure_identity_finds_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity of an App Service, which a server of this machine can give."""
    pytest.importorskip("azure.identity")
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with token_server() as url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", url)
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        store = open_container("box@account.dfs.core.windows.net", StorageOptions(), {})
        provider: Any = store.credential_provider
        assert provider()["token"] == "given"
