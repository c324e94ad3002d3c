"""A supervisor process from its start to its end."""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil
from aiohttp import web

from aks_inference_runtime.api.client import SupervisorClient, read_record
from aks_inference_runtime.api.errors import Conflict, OperationFailed, RuntimeHung, RuntimeUnavailable
from aks_inference_runtime.api.owner import OWNER_FILE, of_another, private, state_of_router
from aks_inference_runtime.api.process import own_mark
from aks_inference_runtime.api.state_folder import RECORD_FILE
from aks_inference_runtime.api.supervisor import LocalSettings, SupervisorInfo, SupervisorRecord
from aks_inference_runtime.local.checks import HOST, holder, require_free
from aks_inference_runtime.local.files import write_text, write_wire
from aks_inference_runtime.local.keeper import kept
from aks_inference_runtime.local.process import STATE_VARIABLE
from aks_inference_runtime.local.records import StatePaths, remove_state
from aks_inference_runtime.local.server import Api
from aks_inference_runtime.local.supervisor import Supervisor
from aks_inference_runtime.router.model import Router

LOCK_WAIT_S = 20.0
RECORD_S = 1.0
RECORD_LOOKS = 3
"""In a row without the record, since who puts a backup in place takes it away for a moment."""
_log = logging.getLogger(__name__)
RouterFactory = Callable[[Path, LocalSettings], Router]


async def serve(
    settings: LocalSettings, make_router: RouterFactory, tell: Callable[[str], None], version: str, restarts: int = 0
) -> None:
    """Runs until it is shut down (all ends) or gets SIGTERM (only the supervisor ends).

    Args:
        settings: Required. The local cluster; its state directory is there and private.
        make_router: Required. Gets the router's folder and the settings.
        tell: Required. Called once with `ready` as soon as the API answers, also when another supervisor's does.
        version: Required. Of the package.
        restarts: Optional. How often its keeper started one lately. Default 0.

    Raises:
        AksInferenceError: it did not start; nothing was touched.
    """
    directory = Path(settings.state_directory)
    os.environ[STATE_VARIABLE] = str(directory)
    lock = await _lock(directory)
    if lock is None:
        tell("ready")
        return
    try:
        if os.fstat(lock.fileno()).st_nlink == 0 or (restarts and not (directory / RECORD_FILE).exists()):
            raise OperationFailed(f"the cluster in {directory} was destroyed meanwhile")
        record = _record(settings, directory, version)
        paths = StatePaths(directory, Path(record.run_directory))
        try:
            _check_port(settings.port, paths.router)
            supervisor = Supervisor(settings, paths, make_router(paths.router, settings))
            write_wire(directory / RECORD_FILE, record)
            with contextlib.suppress(OperationFailed):  # it only makes a text better
                write_text(paths.run / OWNER_FILE, str(directory))
        except BaseException:
            # Made for this start (else it holds sockets and stays): without a record nobody would find it.
            with contextlib.suppress(OSError):
                paths.run.rmdir()
            raise
        await supervisor.start()
        await _answer(supervisor, record, tell, restarts)
    finally:
        lock.close()


async def _answer(supervisor: Supervisor, record: SupervisorRecord, tell: Callable[[str], None], restarts: int) -> None:
    info = SupervisorInfo(
        name=record.settings.name,
        pid=record.pid,
        started=record.started,
        version=record.version,
        url=supervisor.url,
        port=record.settings.port,
        state_directory=record.settings.state_directory,
        socket=str(record.socket),
        haproxy=record.settings.haproxy,
    )
    api = Api(supervisor, info)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, api.asked_to_end.set)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    record.socket.unlink(missing_ok=True)
    await web.UnixSite(runner, str(record.socket)).start()
    tell("ready")
    directory = Path(record.settings.state_directory)
    watches = [
        asyncio.create_task(work) for work in (_watch_record(directory, api), kept(supervisor.paths.root, restarts))
    ]
    await api.asked_to_end.wait()
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    try:
        if api.remove is None:
            await supervisor.detach()
            return
        await supervisor.shutdown()
        if api.remove:
            await asyncio.to_thread(remove_state, supervisor.paths)
        elif not (supervisor.paths.root / RECORD_FILE).exists():
            # Without a record nothing leads to it any more.
            await asyncio.to_thread(shutil.rmtree, supervisor.paths.run, ignore_errors=True)
    except Exception as error:  # noqa: BLE001 - whatever it was: who asked must not be told that all is gone
        _log.exception("the supervisor did not end in order")
        api.problem = OperationFailed(f"not all could be ended: {error}")
    finally:
        api.ended.set()
        await runner.cleanup()
        record.socket.unlink(missing_ok=True)


async def _watch_record(directory: Path, api: Api) -> None:
    """Asks for the end of everything when the record stays away: nobody could find this supervisor any more.

    What else is in the folder stays, should it be there still.
    """
    looks = 0
    while looks < RECORD_LOOKS:
        await asyncio.sleep(RECORD_S)
        try:
            (directory / RECORD_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            looks += 1
        except OSError as error:
            _log.warning("%s cannot be looked at: %s", directory / RECORD_FILE, error)
        else:
            looks = 0
    _log.error("%s was removed; all that was started for it ends", directory / RECORD_FILE)
    api.remove = not await asyncio.to_thread(directory.exists)
    api.asked_to_end.set()


async def _lock(directory: Path) -> TextIO | None:
    """The lock of the state directory, or None when another supervisor has it and answers."""
    file = (directory / "supervisor.lock").open("w")
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                await SupervisorClient(directory).info()
            except RuntimeHung:
                file.close()
                raise
            except RuntimeUnavailable:
                if time.monotonic() > deadline:
                    file.close()
                    raise RuntimeUnavailable(f"another supervisor holds {directory} and does not answer") from None
                await asyncio.sleep(0.1)
                continue
            file.close()
            return None
        return file


def _record(settings: LocalSettings, directory: Path, version: str) -> SupervisorRecord:
    """The record of this process; the sockets stay where they were as long as their folder is there."""
    old = read_record(directory, missing_ok=True)
    if old is not None and old.settings != settings:
        raise Conflict(
            f"{directory} belongs to the local cluster {old.settings.name!r} on port {old.settings.port}; destroy it "
            f"first or give another stateDirectory"
        )
    run = Path(old.run_directory) if old is not None and private(Path(old.run_directory)) else _new_run_directory()
    return SupervisorRecord(
        settings=settings,
        run_directory=str(run),
        pid=os.getpid(),
        process_mark=own_mark(),
        started=time.time(),
        version=version,
    )


def _new_run_directory() -> Path:
    """Short, since a socket's path ends at 108 bytes; made under a random name, so that nobody can be there first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    plain = re.fullmatch(r"[\w/.-]{1,39}", runtime, re.ASCII)  # HAProxy reads more in a path than its letters
    base = runtime if plain and private(Path(runtime)) else "/tmp"  # noqa: S108 - as said
    return Path(tempfile.mkdtemp(prefix="aks-inf-", dir=base))


def _check_port(port: int, router: Path) -> None:
    """Raises Conflict when somebody else has the router's port; a router that we left running may."""
    pid = holder(port)
    command = _command(pid) if pid is not None else []
    if any(str(router) in part for part in command):
        return
    if (owner := state_of_router(command)) is not None:
        raise Conflict(f"port {of_another(port, HOST, owner)}")
    require_free(port)


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
