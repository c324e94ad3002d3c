"""LocalRuntime: the supervisor of this machine, which outlives the plugin."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Change, Diff, Difference, changes
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.local_observing import OBSERVING, kept, observing_failures, observing_of
from aks_inference_provider.wire import UNKNOWN, derive, plain, whole_numbers
from aks_inference_runtime.api.client import LocalSettings, SupervisorClient, destroy, launch, read_record
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, RuntimeHung, RuntimeUnavailable
from aks_inference_runtime.api.owner import of_another, state_of_router
from aks_inference_runtime.api.state_folder import folder_problem
from aks_inference_runtime.api.supervisor import (
    DEFAULT_PORT,
    OBSERVING_FILE,
    Observing,
    default_state_directory,
)
from aks_inference_runtime.api.target import LocalTarget, format_target

LAUNCH_TIMEOUT_S = 30.0
HOST = "127.0.0.1"

INPUTS = (
    Field("name", Kind.STRING, "Required. The cluster's name.", required=True, replaces=True),
    Field(
        "port",
        Kind.INTEGER,
        f"Optional. Port of the router on 127.0.0.1. Default {DEFAULT_PORT}.",
        replaces=True,
        default=DEFAULT_PORT,
    ),
    Field(
        "stateDirectory",
        Kind.STRING,
        "Optional. Absolute path of the folder for models, logs and keys, for this cluster alone. Default "
        "`${XDG_STATE_HOME:-~/.local/state}/aks-inference/<project>-<stack>-<name>`.",
        replaces=True,
    ),
    Field(
        "haproxy",
        Kind.STRING,
        "Optional. Absolute path of another HAProxy binary (2.8 or newer). Default: the one that comes with the "
        "package. A change restarts the cluster.",
    ),
    *OBSERVING,
    Field("running", Kind.BOOLEAN, "That it should run; after a refresh, whether it does.", computed=True),
)
OUTPUTS = (
    Field("target", Kind.STRING, "Where services run: pass it on as their `target`.", required=True),
    Field("url", Kind.STRING, "The router's base URL.", required=True),
)


def check(urn: Urn, olds: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[dict[str, Any], list[Failure]]:
    """Defaults for plain inputs, and all that is wrong with them."""
    failures = check_fields(INPUTS, news)
    defaults: dict[str, Any] = {"running": True}
    if news.get("port") is None:
        defaults["port"] = DEFAULT_PORT
    name, port, directory, haproxy = (news.get(key) for key in ("name", "port", "stateDirectory", "haproxy"))
    if isinstance(name, str) and name != UNKNOWN:
        if not name or len(name) > 64 or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
            failures.append(Failure("name", f"{name!r} is no name: 1 to 64 letters, digits, dashes, dots, underscores"))
        if directory is None:
            defaults["stateDirectory"] = _default_directory(urn, olds, name)
    elif directory is None and name == UNKNOWN:
        defaults["stateDirectory"] = UNKNOWN
    metrics = news.get("metricsPort")
    for key, number in (("port", port), ("metricsPort", metrics)):
        if isinstance(number, int | float) and not isinstance(number, bool) and not 1 <= number <= 65_535:
            failures.append(Failure(key, f"{number:g} is no port: 1 to 65535"))
    if metrics is not None and metrics != UNKNOWN and metrics == {**news, **defaults}.get("port"):
        failures.append(Failure("metricsPort", f"{metrics:g} is the router's own port; give another"))
    failures += observing_failures(news)
    for key, path in (("stateDirectory", directory), ("haproxy", haproxy)):
        if isinstance(path, str) and path != UNKNOWN and not Path(path).is_absolute():
            failures.append(Failure(key, f"{path!r} is not absolute; give an absolute path"))
    return defaults, failures


def _default_directory(urn: Urn, olds: Mapping[str, Any], name: str) -> str:
    """The old default stays when only the home directory is another now: a move would be a replacement."""
    default = default_state_directory(f"{urn.project}-{urn.stack}-{name}")
    old = olds.get("stateDirectory")
    if isinstance(old, str) and Path(old).parts[-2:] == default.parts[-2:]:
        return old
    return str(default)


def diff(olds: Mapping[str, Any], news: Mapping[str, Any], running: bool) -> Diff:
    """What has to happen, from plain inputs; a cluster that does not run has to be started."""
    replacing = {field.name for field in INPUTS if field.replaces}
    found = {
        path: Difference(change, replaces=path in replacing)
        for path, change in changes(whole_numbers(olds), whole_numbers(news)).items()
    }
    if not running:
        # An addition: by what the engine knows it runs, and a change would read "true => true".
        found.setdefault("running", Difference(Change.ADD, of_input=False))
    # Two cannot share a port or a folder, also when somebody else asks for the replacement.
    return Diff(found, delete_before_replace=True)


def obstacle_on(port: int, directories: Collection[str]) -> str | None:
    """Why a cluster cannot have a port. Whoever belongs to one of the state directories is itself, or goes before."""
    if not _in_use(port):
        return None
    with contextlib.suppress(psutil.Error, OSError):
        if holder := _holder(port):
            if any(_is_supervisor(holder.pid, each) for each in directories):
                return None
            command = holder.cmdline()
            if any(text.startswith(folder) for each in directories for folder in _folders(each) for text in command):
                return None
            if owner := state_of_router(command):
                return f"{of_another(port, HOST, owner)}{_renamed(owner)}"
            return _used(port, f"process {holder.pid} ({holder.name()})")
    # Another user's, or it ended this moment.
    return _used(port, "another process") if _in_use(port) else None


def folder_of_another(directory: str, name: str) -> str | None:
    """Why a new cluster cannot have a state directory: one of another name has it."""
    former = _name_of(Path(directory))
    if former is None or name in (former, UNKNOWN):
        return None
    return (
        f'{directory} is that of the local cluster "{former}"; give another folder, or destroy that cluster first'
        f"{_renamed(Path(directory))}"
    )


def _unusable(directory: str) -> str | None:
    """Why the default folder cannot be had."""
    try:
        problem = folder_problem(Path(directory))
    except OSError as error:
        return f"{directory} cannot be looked at: {error.strerror}; give another folder"
    return f"{directory} {'; '.join(problem)}" if problem else None


def _renamed(directory: Path) -> str:
    """To the engine a component with another name is another one, which comes before the former one goes."""
    name = _name_of(directory)
    if name is None:
        return ""
    return (
        f'; if it is this cluster under its former name "{name}", give this one the resource option '
        f'aliases=[pulumi.Alias(name="{name}")]: it then replaces it'
    )


def _name_of(directory: Path) -> str | None:
    with contextlib.suppress(AksInferenceError):
        if record := read_record(directory, missing_ok=True):
            return record.settings.name
    return None


def _used(port: int, holder: str) -> str:
    return f"{port} on {HOST} is in use by {holder}; end it or give another port"


def _folders(directory: str) -> list[str]:
    """Where the files of a cluster are: its router was started with one of them."""
    with contextlib.suppress(AksInferenceError):
        if record := read_record(Path(directory), missing_ok=True):
            return [f"{directory}/", f"{record.run_directory}/"]
    return [f"{directory}/"]


def _is_supervisor(pid: int, directory: str) -> bool:
    """Of that cluster: it has the port of the metrics."""
    with contextlib.suppress(AksInferenceError):
        record = read_record(Path(directory), missing_ok=True)
        return record is not None and record.pid == pid
    return False


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _holder(port: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return psutil.Process(each.pid)
    return None


def computed(inputs: Raw) -> Computed:
    """The outputs that follow from the inputs."""
    return {
        "target": derive(_target, inputs.get("name"), inputs.get("stateDirectory"), inputs.get("port")),
        "url": derive(lambda port: f"http://{HOST}:{int(port)}", inputs.get("port")),
    }


def _target(name: str, directory: str, port: float) -> str:
    return format_target(LocalTarget(name=name, state_directory=directory, port=int(port)))


class LocalRuntime:
    """The supervisor with its router, as a resource. Its id is the state directory."""

    token = f"{PACKAGE}:index:LocalRuntime"
    description = "The inference runtime on this machine: a supervisor with its router, which outlives the deployment."
    inputs = INPUTS
    outputs = OUTPUTS

    def __init__(self) -> None:
        self._hung: dict[str, str] = {}
        """By URN what a supervisor that hangs was found to be, for the notes of a preview."""
        self._before: dict[str, str] = {}
        """By URN the state directory it has: a replacement is checked a second time, then without what it replaces."""

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check`; for a new cluster, and one that moves, looks whether others have the port or the folder."""
        known = plain(olds)
        defaults, failures = check(urn, known, plain(news))
        if isinstance(known.get("stateDirectory"), str):
            self._before[urn.text] = known["stateDirectory"]
        wanted = plain({**news, **defaults})
        port, directory = wanted.get("port"), wanted.get("stateDirectory")
        metrics = wanted.get("metricsPort")
        if not failures and metrics not in (None, UNKNOWN, known.get("metricsPort")):
            folders = {each for each in (directory, self._before.get(urn.text)) if isinstance(each, str)}
            if obstacle := await asyncio.to_thread(obstacle_on, int(metrics), folders):
                failures.append(Failure("metricsPort", obstacle))
        if not failures and port != UNKNOWN and not (known and known.get("port") in (port, None)):
            own = {each for each in (directory, self._before.get(urn.text)) if isinstance(each, str)}
            if obstacle := await asyncio.to_thread(obstacle_on, int(port), own):
                failures.append(Failure("port", obstacle))
        new = not known and self._before.get(urn.text) != directory
        if not failures and new and (taken := await asyncio.to_thread(folder_of_another, directory, wanted["name"])):
            failures.append(Failure("stateDirectory", taken))
        # One that is given was looked at by the component.
        default = "stateDirectory" in defaults and directory != UNKNOWN
        if not failures and new and default and (problem := await asyncio.to_thread(_unusable, directory)):
            failures.append(Failure("stateDirectory", problem))
        return Checked({**news, **defaults}, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """See `diff`; looks whether the supervisor answers."""
        self._hung.pop(state.urn, None)
        try:
            running = await _answers(state.id)
        except RuntimeHung as error:
            running, self._hung[state.urn] = False, str(error)
        return diff(plain(state.inputs), plain(news), running)

    async def notes(self, inputs: Raw, state: State | None) -> list[str]:
        """Says of a supervisor that hangs what the apply would fail with."""
        hung = self._hung.get(state.urn) if state else None
        return [Caution(hung)] if hung else []

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """Everything is known."""
        return computed(inputs)

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Starts the supervisor, or finds it running; one that is cancelled while it starts is ended again."""
        settings = _settings(plain(inputs))
        found = await _running(settings.state_directory)
        start = asyncio.ensure_future(self._start(operation, settings, observing_of(plain(inputs)), found=found))
        try:
            await asyncio.shield(start)
        except asyncio.CancelledError:
            # No state will know of it. Half started it could not be ended: what serves, can.
            with contextlib.suppress(AksInferenceError):
                await start
                if not found:
                    await SupervisorClient(settings.state_directory).shutdown(remove=True)
            raise
        return Made(settings.state_directory, computed(inputs))

    async def _start(
        self, operation: Operation, settings: LocalSettings, observing: Observing, *, found: bool = True
    ) -> None:
        """`found`: whether it ran before; one that was made here and cannot be as declared is ended again."""
        operation.progress.status(f"starting on port {settings.port}")
        await launch(settings, operation.timeout_s or LAUNCH_TIMEOUT_S)
        told = Path(settings.state_directory) / OBSERVING_FILE
        # A supervisor of an earlier release, which observes nothing, is not asked to.
        if observing == Observing() and not await asyncio.to_thread(told.exists):
            return
        client = SupervisorClient(settings.state_directory)
        try:
            await client.put_observing(observing)
        except AksInferenceError:
            if not found:
                with contextlib.suppress(AksInferenceError):
                    await client.shutdown(remove=True)
            raise

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Starts it where it does not run; another HAProxy takes a restart."""
        settings = _settings(plain(inputs))
        if plain(state.inputs).get("haproxy") != settings.haproxy and await _running(state.id):
            operation.progress.status("restarting with another HAProxy")
            await SupervisorClient(state.id).shutdown(remove=False)
        await self._start(operation, settings, observing_of(plain(inputs)))
        return computed(inputs)

    async def read(self, operation: Operation, state: State) -> State | None:
        """As it is; one that does not run but has its files is still there, not running."""
        try:
            record = await asyncio.to_thread(read_record, Path(state.id), missing_ok=True)
        except InvalidInput as error:
            operation.progress.warn(str(error))
            return state
        if record is None:
            return None
        declared = state.inputs or {**record.settings.to_wire(), **await asyncio.to_thread(kept, state.id)}
        inputs = {**declared, "running": await _running(state.id)}
        return State(state.id, inputs, {**inputs, **computed(inputs)})

    async def delete(self, operation: Operation, state: State) -> None:
        """Stops everything that it started and removes its files."""
        operation.progress.status("stopping")
        await destroy(state.id)


def _settings(inputs: Mapping[str, Any]) -> LocalSettings:
    return LocalSettings(
        name=inputs["name"],
        state_directory=inputs["stateDirectory"],
        port=int(inputs["port"]),
        haproxy=inputs.get("haproxy"),
    )


async def _running(directory: str) -> bool:
    try:
        return await _answers(directory)
    except RuntimeHung:
        return False


async def _answers(directory: str) -> bool:
    """Raises RuntimeHung."""
    try:
        await SupervisorClient(directory).info()
    except RuntimeHung:
        raise
    except (RuntimeUnavailable, InvalidInput):
        return False
    return True
