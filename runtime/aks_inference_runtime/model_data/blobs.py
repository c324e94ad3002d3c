"""Append blobs of Azure Blob Storage. The SDK is an optional package, which the runtime's image has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aks_inference_runtime.model_data.shipping import Outcome
from aks_inference_runtime.models.azure import azure_errors, error_code

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

_THERE = frozenset({"BlobAlreadyExists", "ContainerAlreadyExists"})
_MOVED = frozenset({"AppendPositionConditionNotMet", "BlobNotFound"})
"""Also one that was removed meanwhile: the next look makes it anew."""
_FULL = frozenset({"BlockCountExceedsLimit", "MaxBlobSizeConditionNotMet", "InvalidBlobType"})


class AppendBlobs:
    """Below a prefix of a container, which is made where there is none."""

    def __init__(self, address: str, prefix: str, client: "Callable[[], ContainerClient]") -> None:
        self._address, self._make = address, client
        self._prefix = f"{prefix}/" if prefix else ""
        self._made: ContainerClient | None = None

    def length(self, name: str) -> int | None:
        """See Blobs."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        blob = self._blob(name)
        with azure_errors(self._address):
            try:
                found = blob.get_blob_properties()
            except ResourceNotFoundError:
                self._container()
                try:
                    blob.create_append_blob(match_condition=MatchConditions.IfMissing)
                except HttpResponseError as error:
                    if error_code(error) not in _THERE:
                        raise
                found = blob.get_blob_properties()
            return found.size if found.blob_type == "AppendBlob" else None

    def read(self, name: str, start: int, count: int) -> bytes:
        """See Blobs."""
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        if count == 0:
            return b""
        with azure_errors(self._address):
            try:
                return bytes(self._blob(name).download_blob(start, count).readall())
            except ResourceNotFoundError:
                return b""
            except HttpResponseError as error:
                if error.status_code == 416:  # nothing is there
                    return b""
                raise

    def append(self, name: str, position: int, block: bytes) -> Outcome:
        """See Blobs."""
        from azure.core.exceptions import HttpResponseError

        with azure_errors(self._address):
            try:
                self._blob(name).append_block(block, appendpos_condition=position)
            except HttpResponseError as error:
                code = error_code(error)
                if code in _MOVED:
                    return Outcome.MOVED
                if code in _FULL:
                    return Outcome.FULL
                raise
        return Outcome.DONE

    def _blob(self, name: str) -> "BlobClient":
        if self._made is None:
            self._made = self._make()
        return self._made.get_blob_client(self._prefix + name)

    def _container(self) -> None:
        """As Azure ML made its own; who may only write blobs finds it there."""
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

        assert self._made is not None  # noqa: S101 - a blob was asked for before
        try:
            self._made.create_container()
        except ClientAuthenticationError:
            return
        except HttpResponseError as error:
            if error_code(error) not in _THERE and error.status_code != 403:
                raise
