"""What an HAProxy must be to route: its version and what it was built with."""

import contextlib
import os
import re
import signal
import subprocess

from aks_inference_runtime.api.errors import InvalidInput

OLDEST = (2, 8)
"""Older ones lack `del server` and runtime servers as they are used here."""
LONGEST_ANSWER_S = 5.0


def check_haproxy(path: str, timeout_s: float = LONGEST_ANSWER_S) -> None:
    """Asks a binary for its version.

    Args:
        path: Required. The binary.
        timeout_s: Optional. Seconds until it must have said it. Default 5.

    Raises:
        InvalidInput: it does not run, does not answer in time, is no HAProxy, too old or without Lua.
    """
    try:
        text = _asked(path, timeout_s)
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{path} did not say its version within {timeout_s:g} s") from None
    except OSError as error:
        raise InvalidInput(f"{path} does not run: {error.strerror}") from None
    found = re.search(r"HAProxy version (\d+)\.(\d+)", text)
    if found is None:
        raise InvalidInput(f"{path} is no HAProxy: `-vv` shows no version of it")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise InvalidInput(f"{path} is version {version[0]}.{version[1]}; at least 2.8 is needed")
    if "+LUA" not in text:
        raise InvalidInput(f"{path} is built without Lua, which the router needs")


def _asked(path: str, timeout_s: float) -> str:
    """What it prints; nothing that it started outlives it."""
    with subprocess.Popen(
        [path, "-vv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as asked:
        try:
            text, _ = asked.communicate(timeout=timeout_s)
        except BaseException:  # Ctrl-C, too, leaves nothing behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(asked.pid, signal.SIGKILL)
            raise
    if asked.returncode:
        raise InvalidInput(f"{path} does not run: it ended with {asked.returncode}")
    return text
