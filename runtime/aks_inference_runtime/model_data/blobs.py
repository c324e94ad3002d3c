"""Append blobs of Azure Blob Storage. The SDK is an optional package, which the runtime's image has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aks_inference_runtime.model_data.shipping import NotAppended, Outcome
from aks_inference_runtime.models.azure import azure_errors, error_code
from aks_inference_runtime.models.errors import StoreUnavailable

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

_THERE = frozenset({"BlobAlreadyExists", "ContainerAlreadyExists"})
_MOVED = frozenset({"AppendPositionConditionNotMet", "BlobNotFound"})
"""Also one that was removed meanwhile: the next look makes it anew."""
_FULL = frozenset({"BlockCountExceedsLimit", "MaxBlobSizeConditionNotMet", "InvalidBlobType"})
_HEADER, _NONE = "header", "none"
"""Metadata of a blob whose rows have no header; its first row may look like one."""
_TIMED_OUT = 408


class AppendBlobs:
    """Below a prefix of a container, which is made where there is none."""

    def __init__(self, address: str, prefix: str, client: "Callable[[], ContainerClient]") -> None:
        """`client`: makes one that repeats no request; asked again after an error, as access may have changed."""
        self._address, self._make = address, client
        self._prefix = f"{prefix}/" if prefix else ""
        self._made: ContainerClient | None = None

    def length(self, name: str, *, headed: bool) -> int | None:
        """See Blobs."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        with self._asked():
            blob = self._blob(name)
            try:
                found = blob.get_blob_properties()
            except ResourceNotFoundError:
                self._container()
                try:
                    blob.create_append_blob(
                        metadata=None if headed else {_HEADER: _NONE}, match_condition=MatchConditions.IfMissing
                    )
                except HttpResponseError as error:
                    if error_code(error) not in _THERE:
                        raise
                found = blob.get_blob_properties()
            has_header = found.metadata.get(_HEADER) != _NONE
            return found.size if found.blob_type == "AppendBlob" and has_header == headed else None

    def read(self, name: str, start: int, count: int) -> bytes:
        """See Blobs."""
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        if count == 0:
            return b""
        with self._asked():
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
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

        refused = False
        try:
            with self._asked():
                try:
                    self._blob(name).append_block(block, appendpos_condition=position)
                except HttpResponseError as error:
                    code, status = error_code(error), error.status_code or 0
                    if code in _MOVED:
                        return Outcome.MOVED
                    if code in _FULL:
                        return Outcome.FULL
                    refused = isinstance(error, ClientAuthenticationError) or (
                        400 <= status < 500 and status != _TIMED_OUT
                    )
                    raise
        except StoreUnavailable as error:
            if refused:
                raise NotAppended(str(error)) from None
            raise
        return Outcome.DONE

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            with azure_errors(self._address):
                yield
        except StoreUnavailable:
            # A client keeps the access that it was made with; a Secret's may be another one by now.
            self._made = None
            raise

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
