"""Errors on their way over the wire and back."""

from typing import NoReturn

from aks_inference_runtime.api import errors
from aks_inference_runtime.api.supervisor import Problem

HTTP_STATUS: dict[type[errors.AksInferenceError], int] = {
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.RuntimeHung: 503,
    errors.RuntimeUnavailable: 503,
    errors.OperationFailed: 500,
}
_BY_NAME = {kind.__name__: kind for kind in HTTP_STATUS}


def to_problem(error: errors.AksInferenceError) -> Problem:
    """The wire form of an error."""
    return Problem(error=type(error).__name__, message=str(error))


def raise_problem(problem: Problem) -> NoReturn:
    """Raises the error that a problem stands for."""
    raise _BY_NAME.get(problem.error, errors.OperationFailed)(problem.message)
