"""The errors of this provider."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedded_engine.errors import EngineError


class KubernetesError(EngineError):
    """What the user is told."""


class KubeconfigError(KubernetesError):
    """A kubeconfig that cannot be used as it is."""


class UnreachableError(KubernetesError):
    """The API server does not answer."""


class UnknownKindError(KubernetesError):
    """The API server has no such kind (yet)."""


class RefusedError(KubernetesError):
    """The API server said no. `causes` are (field, message) where it names fields."""

    def __init__(self, status: int, body: Mapping[str, Any], what: str) -> None:
        self.status = status
        self.reason = str(body.get("reason") or "")
        details = body.get("details") or {}
        self.causes: Sequence[tuple[str, str]] = tuple(
            (str(cause.get("field") or ""), str(cause.get("message") or "")) for cause in details.get("causes") or ()
        )
        said = str(body.get("message") or body.get("reason") or f"status {status}")
        super().__init__(f"{what}: {said}")
        self._body, self._what = body, what

    def with_mend(self, mend: str) -> "RefusedError":
        """The same, saying what to do."""
        said = str(self._body.get("message") or "").rstrip(".")
        return RefusedError(self.status, {**self._body, "message": f"{said}; {mend}"}, self._what)
