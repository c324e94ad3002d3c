"""Errors of sources and stores of models; all are errors of the package (api.errors)."""

from aks_inference_runtime.api.errors import InvalidInput, OperationFailed, RuntimeUnavailable


class SourceUnavailable(RuntimeUnavailable):
    """Where the files come from did not answer, or went on failing after all tries."""


class UnsafeArchive(InvalidInput):
    """An archive that would leave its folder, is far larger than it looks, or holds what is no file."""


class StoreUnavailable(RuntimeUnavailable):
    """The store did not answer, or refuses these credentials."""


class ContentMismatch(OperationFailed):
    """Bytes that arrived or lie in a store are not those of their digest."""


class MissingPackage(InvalidInput):
    """A source or store needs an optional package that is not installed; the text names it."""
