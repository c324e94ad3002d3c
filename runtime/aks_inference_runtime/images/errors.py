"""Errors of looking up, building and pushing images; all are errors of the package (api.errors)."""

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable


class RegistryError(OperationFailed):
    """A registry refused a request; the text says which, with the registry's own words."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AccessDenied(RegistryError):
    """The registry wants other credentials, or these may not do this."""


class DigestMismatch(RegistryError):
    """What arrived is not what its digest says."""


class RegistryUnavailable(RuntimeUnavailable):
    """The registry did not answer, or went on failing after all tries."""


class BuildFailed(OperationFailed):
    """An image could not be built; the text carries the tail of the log where there is one."""
