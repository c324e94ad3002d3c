"""Errors of the plugin that reach the engine.

ProviderError
├── ResourceFailed        the operation failed; nothing of the resource is there that was not before
├── ResourcePartlyFailed  the resource exists under its id, but it is not well (ErrorResourceInitFailed)
└── OperationCancelled    the engine asked to stop
"""

from collections.abc import Mapping
from typing import Any


class ProviderError(Exception):
    """Base of all errors; its text is fit for a user."""


class ResourceFailed(ProviderError):
    """The operation failed; nothing of the resource is there that was not before."""


class OperationCancelled(ProviderError):
    """The engine asked to stop while the operation ran."""


class ResourcePartlyFailed(ProviderError):
    """The resource exists under `id` with what it computed so far; the next update tries again."""

    def __init__(self, reason: str, resource_id: str, computed: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.resource_id = resource_id
        self.computed = computed
