"""The errors of this provider."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedded_engine.errors import EngineError

_UNTYPED = "failed to create typed patch object"
_UNDECLARED = ": field not declared in schema"


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

    @property
    def untyped(self) -> bool:
        """The object does not fit the schema of its kind. The server says 500, as if it could not tell now."""
        return str(self._body.get("message") or "").startswith(_UNTYPED)

    @property
    def undeclared(self) -> str:
        """The fields that the schema does not have; empty where that is not (all of) why."""
        said = str(self._body.get("message") or "").partition("): ")[2].removeprefix("errors:")
        fields = [line.strip().partition(_UNDECLARED) for line in said.splitlines() if line.strip()]
        known = self.untyped and all(found for _, found, _ in fields)
        return ", ".join(field for field, _, _ in fields) if known else ""

    def with_message(self, message: str) -> "RefusedError":
        """The same, in other words."""
        return RefusedError(self.status, {**self._body, "message": message}, self._what)
