"""From the address of a store to the store. Pure, short of clients that connect when they are used."""

import re
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.reference import repository_of
from aks_inference_runtime.images.registry import CredentialStore, TransportOptions
from aks_inference_runtime.models.sources.address import Scheme, parse_address
from aks_inference_runtime.models.stores.store import ModelStore

DEFAULT_REPOSITORY = "aks-inference/models"


def parse_store(text: str) -> str:
    """The address of a store in its one form. Raises InvalidInput that says the rule and the mend."""
    return open_store(text).address


def blob_place(text: str) -> tuple[str, str, str]:
    """Account, container and prefix of `az://account/container[/prefix]`. Raises InvalidInput."""
    if not text.startswith("az://"):
        raise InvalidInput(f"{text!r} is not in Blob Storage; write az://account/container[/prefix]")
    account, _, rest = text.removeprefix("az://").partition("/")
    container, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    # The rules are those of a source below it.
    parse_address(f"{Scheme.BLOB}://{account}/{container}/x")
    if prefix and not re.fullmatch(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*", prefix):
        raise InvalidInput(f"{prefix!r} is not a prefix (letters, digits, and . _ - / between them)")
    return account, container, prefix


def open_store(
    text: str, credentials: CredentialStore | None = None, options: TransportOptions | None = None
) -> ModelStore:
    """A store by its address; nothing is asked of it yet.

    Args:
        text: Required. An absolute path, `az://account/container[/prefix]` or `oci://registry[/repository]`.
        credentials: Optional. Of registries. Default: those of `docker login`.
        options: Optional. How registries are reached. Default: with TLS, this machine's own without.

    Raises:
        InvalidInput: it is none of these.
    """
    if text.startswith("az://"):
        from aks_inference_runtime.models.stores.blob import BlobStore

        return BlobStore(*blob_place(text))
    if text.startswith("oci://"):
        from aks_inference_runtime.models.stores.oci import OciStore

        registry, repository = repository_of(text.removeprefix("oci://"), DEFAULT_REPOSITORY)
        return OciStore(registry, repository, credentials, options)
    if not Path(text).is_absolute() or "://" in text:
        raise InvalidInput(
            f"{text!r} is not a store; give an absolute path, az://account/container[/prefix] or "
            f"oci://registry[/repository]"
        )
    from aks_inference_runtime.models.stores.folder import FolderStore

    return FolderStore(Path(text))
