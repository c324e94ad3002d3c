"""Where the state of stacks is kept."""

from embedded_engine.backend.checkpoint import (
    Checkpoint,
    Serializer,
    check_version,
    checked,
    intact,
    integrity_problems,
)
from embedded_engine.backend.lock import StackLock
from embedded_engine.backend.store import ORGANIZATION, FileBackend, StackName, backend_folder, parse_stack_name

__all__ = [
    "ORGANIZATION",
    "Checkpoint",
    "FileBackend",
    "Serializer",
    "StackLock",
    "StackName",
    "backend_folder",
    "check_version",
    "checked",
    "intact",
    "integrity_problems",
    "parse_stack_name",
]
