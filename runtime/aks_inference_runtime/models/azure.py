"""Azure Blob Storage: who we are there, and how it is reached. The SDK is an optional package."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aks_inference_runtime.images.registry.transport import tls_context
from aks_inference_runtime.models.errors import MissingPackage, StoreUnavailable

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
CONNECTION_STRING_FILE = "AZURE_STORAGE_CONNECTION_STRING_FILE"
"""A file that holds it: in a pod a mounted secret, so that no environment shows it."""
CA_FILE = "AZURE_STORAGE_CA_FILE"
"""A file with certificate authorities (PEM) of storage behind a private one, beside those of the machine."""
CONNECTION_STRING_NAME = "connection-string"
AUTHORITIES = "ca.crt"
"""Names in a folder of credentials: those of Kubernetes' own kinds of Secrets, where it has one."""
CONNECT_S, READ_S = 10, 60
RETRIES, FIRST_RETRY_S = 5, 1
"""The SDK's own first wait is 15 seconds."""
PARALLEL = 4
_SILENT = logging.NullHandler()


def container_client(account: str, container: str, retries: int = RETRIES) -> "ContainerClient":
    """A client for a container.

    The connection string of `AZURE_STORAGE_CONNECTION_STRING` (or of the file that
    `AZURE_STORAGE_CONNECTION_STRING_FILE` names) counts where it is one of this account; else the identity of the
    machine: workload identity, managed identity, or that of `az login`. Certificates are those that the machine trusts
    (`SSL_CERT_FILE` counts), and those of the file that `AZURE_STORAGE_CA_FILE` names.

    Args:
        account: Required. The account's name, or its host where the cloud is not the public one.
        container: Required. The container's name.
        retries: Optional. Of one request. Default 5.

    Raises:
        MissingPackage: the SDK is not installed.
        InvalidInput: the file with authorities is none.
        StoreUnavailable: what is given as connection string is none.
    """
    _need_packages()
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    # Without a handler a page of warnings stands before each error: of these the error's own words are enough.
    logging.getLogger("azure").addHandler(_SILENT)

    options: dict[str, Any] = {
        "retry_policy": ExponentialRetry(initial_backoff=FIRST_RETRY_S, increment_base=2, retry_total=retries),
        "connection_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "max_single_get_size": 8 * 1024 * 1024,
        "max_chunk_get_size": 8 * 1024 * 1024,
    }
    options |= _trusting()
    given = _connection_string()
    if given and not _account_of(given):
        raise StoreUnavailable(f"{_source()} holds no connection string; copy it from the account's access keys anew")
    if given and _account_of(given) == account.partition(".")[0]:
        service = BlobServiceClient.from_connection_string(given, **options)
    else:
        from azure.identity import DefaultAzureCredential

        host = account if "." in account else f"{account}.blob.core.windows.net"
        service = BlobServiceClient(f"https://{host}", credential=DefaultAzureCredential(), **options)
    return service.get_container_client(container)


def take_access(credentials: str | None) -> None:
    """Lets this process use what a folder of credentials holds for Blob Storage: names of files, no secrets."""
    if credentials is None:
        return
    for variable, name in ((CONNECTION_STRING_FILE, CONNECTION_STRING_NAME), (CA_FILE, AUTHORITIES)):
        given = Path(credentials) / name
        if given.is_file():
            os.environ[variable] = str(given)


def _trusting() -> dict[str, Any]:
    """The SDK's own transport knows the public authorities alone; ours is given where there are others."""
    file = os.environ.get(CA_FILE)
    if not file and not os.environ.get("SSL_CERT_FILE"):
        return {}
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from requests.adapters import HTTPAdapter

    context = tls_context(Path(file) if file else None)

    class Trusting(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401 - as requests has it
            super().init_poolmanager(*arguments, ssl_context=context, **more)

        def proxy_manager_for(self, proxy: Any, **more: Any) -> Any:  # noqa: ANN401 - as requests has it
            return super().proxy_manager_for(proxy, ssl_context=context, **more)

    session = requests.Session()
    session.mount("https://", Trusting())
    return {"transport": RequestsTransport(session=session, connection_timeout=CONNECT_S, read_timeout=READ_S)}


def _need_packages() -> None:
    if any(find_spec(name) is None for name in ("azure", "azure.storage", "azure.storage.blob", "azure.identity")):
        raise MissingPackage(
            "az:// needs the packages azure-storage-blob and azure-identity; pip install 'pulumi-aks-inference[azure]'"
        )


def _connection_string() -> str:
    if file := os.environ.get(CONNECTION_STRING_FILE):
        try:
            return Path(file).read_text("utf-8").strip()
        except OSError as error:
            raise StoreUnavailable(f"{CONNECTION_STRING_FILE} names {file}: {error.strerror}") from None
    return os.environ.get(CONNECTION_STRING, "")


def _source() -> str:
    return CONNECTION_STRING_FILE if os.environ.get(CONNECTION_STRING_FILE) else CONNECTION_STRING


def _account_of(connection_string: str) -> str:
    """One with a shared access signature names an endpoint in place of the account."""
    parts = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
    try:
        host = urlsplit(parts.get("BlobEndpoint", "")).hostname or ""
    except ValueError:
        host = ""
    return parts.get("AccountName") or host.partition(".")[0]


def _of_another(what: str) -> str:
    """Why a connection string that is given did not count."""
    with suppress(StoreUnavailable):
        account = _account_of(_connection_string())
        if account and not re.match(rf"az://{re.escape(account)}\b", what):
            return f" (that of {_source()} is of the account {account!r})"
    return ""


@contextmanager
def azure_errors(what: str) -> Iterator[None]:
    """The SDK's errors as ours, without the pages of headers that it adds. `what`: the address that is spoken of."""
    _need_packages()
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError as error:
        raise StoreUnavailable(f"{what}: is not there ({error_code(error)})") from None
    except ClientAuthenticationError as error:
        first = str(error).strip().splitlines()[0]
        raise StoreUnavailable(
            f"{what}: refuses this identity ({first}); log in, give it the role Storage Blob Data Contributor, or set "
            f"{CONNECTION_STRING_FILE}{_of_another(what)}"
        ) from None
    except HttpResponseError as error:
        mend = f"; look at {_source()}, at the roles, and at the account's firewall" if error.status_code == 403 else ""
        raise StoreUnavailable(f"{what}: answered {error.status_code} ({error_code(error)}){mend}") from None
    except AzureError as error:
        raise StoreUnavailable(f"{what}: does not answer ({str(error).splitlines()[0][:300]})") from None


def error_code(error: Exception) -> str:
    """The service's own word for an error, else the first line of its text."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or str(error).splitlines()[0])[:300]
