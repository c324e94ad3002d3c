"""Shared memory of a container (`docker run --shm-size`): a volume in memory in place of the node's 64 MB. Pure."""

import re
from typing import Any

from aks_inference.findings import Finding
from aks_inference.manifests import Manifest

NAME = "shm"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([bkmgt]?)(?:i?b)?", re.IGNORECASE)
"""As docker reads it: units of 1,024, bytes without one."""
_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def read_size(text: str | None) -> tuple[int | None, list[Finding]]:
    """Whole MiB, rounded up; None where none is given. The findings' paths begin at the argument."""
    if not text:
        return None, []
    match = _SIZE.fullmatch(text.strip())
    size = float(match[1]) * 1024.0 ** _UNITS[match[2].lower()] if match else 0.0
    if not 0 < size < 2**50:
        return None, [Finding((), "is not a size", "write for example 2g, or 512m", text)]
    return -int(-size // 2**20), []


def volume(megabytes: int) -> Manifest:
    """Of the pod."""
    return {"name": NAME, "emptyDir": {"medium": "Memory", "sizeLimit": f"{megabytes}Mi"}}


def mount() -> dict[str, Any]:
    """Of the container."""
    return {"name": NAME, "mountPath": "/dev/shm"}  # noqa: S108 - what the volume is for
