"""Starts the supervisor of this machine in a session of its own, so that it outlives whoever starts it."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.client import SupervisorClient, read_record
from aks_inference_runtime.api.errors import (
    AksInferenceError,
    Conflict,
    InvalidInput,
    OperationFailed,
    RuntimeHung,
    RuntimeUnavailable,
)
from aks_inference_runtime.api.problems import raise_problem
from aks_inference_runtime.api.state_folder import FIRST_FILES, RECORD_FILE, folder_problem
from aks_inference_runtime.api.supervisor import LocalSettings, Problem, SupervisorInfo

_MODULE = "aks_inference_runtime.local"
_REMAINS_MODULE = "aks_inference_runtime.local.remains"
_PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    }
)
_PASSED_ON_PREFIXES = ("LC_", "PIP_", "XDG_")
"""The supervisor outlives its caller, whose other variables (passphrases, cloud credentials) are not its business."""


async def launch(settings: LocalSettings, timeout_s: float = 30, restarts: int = 0) -> SupervisorInfo:
    """Starts the supervisor, or finds the one that runs with the same settings.

    One that was killed is started again and takes over what it left running.

    Args:
        settings: Required. The local cluster.
        timeout_s: Optional. Seconds until it must answer. Default 30.
        restarts: Optional. How often one was started again lately, by its keeper; then only a cluster that is still
            there. Default 0.

    Raises:
        RuntimeHung: one runs and does not answer.
        Conflict: another supervisor has the state directory, or somebody has the port (the text names the holder).
        InvalidInput: the state directory's path is no absolute one, or its files are of another or newer kind.
        OperationFailed: it did not start; the text carries the tail of its log.
    """
    directory = Path(settings.state_directory)
    if not directory.is_absolute():
        raise InvalidInput(f"stateDirectory: {str(directory)!r} is not absolute; give an absolute path")
    _private_directory(directory)
    try:
        return _same(await SupervisorClient(directory).info(), settings)
    except RuntimeHung:
        raise
    except RuntimeUnavailable:
        pass
    first = read_record(directory, missing_ok=True) is None
    try:
        arguments = [_MODULE, settings.model_dump_json(by_alias=True), *([str(restarts)] if restarts else [])]
        await _run(arguments, directory, timeout_s)
    except AksInferenceError:
        if first:
            _clear(directory)
        raise
    return _same(await SupervisorClient(directory).info(), settings)


async def remove_remains(directory: Path, timeout_s: float = 60) -> None:
    """Ends what a supervisor that is gone (or hangs: then that, too) left running, and removes the files.

    Raises OperationFailed when something could not be ended.
    """
    try:
        await _run([_REMAINS_MODULE, str(directory)], directory, timeout_s)
    except FileNotFoundError:
        if await asyncio.to_thread(directory.exists):
            raise
        # Another one that destroys it was faster.


def _private_directory(directory: Path) -> None:
    """Makes the folder, or refuses one that others own or enter."""
    try:
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise OperationFailed(f"stateDirectory: {directory} cannot be made: {error.strerror}") from None
    if problem := folder_problem(directory):
        raise Conflict(f"stateDirectory: {directory} {'; '.join(problem)}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        directory.chmod(0o700)


def _clear(directory: Path) -> None:
    """Takes away what a first start left that failed: nobody would ever destroy it."""
    if (directory / RECORD_FILE).exists():
        return
    for name in FIRST_FILES:
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _same(info: SupervisorInfo, settings: LocalSettings) -> SupervisorInfo:
    for field, present, wanted in (
        ("name", info.name, settings.name),
        ("port", info.port, settings.port),
        ("haproxy", info.haproxy, settings.haproxy),
    ):
        if present != wanted:
            raise Conflict(
                f"a supervisor (pid {info.pid}) already runs in {info.state_directory} with {field} {present!r}, "
                f"not {wanted!r}; destroy it first or give another stateDirectory"
            )
    return info


async def _run(arguments: list[str], directory: Path, timeout_s: float) -> None:
    """Runs one of our modules, which prints `ready` when it has done its work, or a problem.

    The starter forks the supervisor away and ends when that serves or has said why not.
    """
    log = directory / "supervisor.log"
    with log.open("ab") as errors:
        starter = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working directory of the caller is no place for our modules
            "-m",
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={n: v for n, v in os.environ.items() if n in _PASSED_ON or n.startswith(_PASSED_ON_PREFIXES)},
            cwd="/",
            start_new_session=True,
        )
    try:
        output, _ = await asyncio.wait_for(starter.communicate(), timeout_s)
    except TimeoutError:
        starter.kill()
        await starter.wait()
        raise OperationFailed(
            f"the supervisor in {directory} did not answer within {timeout_s:g} s\n{_tail(log)}"
        ) from None
    if output.strip() == b"ready":
        return
    try:
        problem = Problem.model_validate_json(output)
    except ValidationError:
        raise OperationFailed(f"the supervisor in {directory} did not start\n{_tail(log)}") from None
    raise_problem(problem)


def _tail(log: Path, size: int = 4_000) -> str:
    try:
        return log.read_bytes()[-size:].decode(errors="replace")
    except FileNotFoundError:
        return "(its log is gone)"
