"""One operation on a stack, from the opened stack to the summary."""

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
from pulumi.runtime.proto import engine_pb2_grpc, resource_pb2_grpc

from embedded_engine.deploy.deployment import Deployment
from embedded_engine.deploy.monitor import Engine, Monitor, serving
from embedded_engine.deploy.options import Options as RunOptions
from embedded_engine.deploy.targets import Targets
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic, Event, Sink, Summary
from embedded_engine.plugins.find import Finder, ProjectPlugin
from embedded_engine.program import Launch, Program, interpreter_of
from embedded_engine.session import StackSession


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of an operation. `parallel`: steps at once; `targets` and `replace`: URNs, with `*` and `**`;
    `clear_pending_creates`: what was being created when a run was cut is forgotten when this run has ended well.
    """

    parallel: int = 16
    targets: tuple[str, ...] = ()
    target_dependents: bool = False
    replace: tuple[str, ...] = ()
    refresh: bool = False
    continue_on_error: bool = False
    clear_pending_creates: bool = False


def run(session: StackSession, kind: str, options: Options, sink: Sink, preview: bool = False) -> Summary:
    """Runs `up`, `refresh` or `destroy`, or only previews it. Every event goes to `sink`; the last is the summary.

    Raises `EngineError` where nothing could be begun: a wrong passphrase, a damaged state, no plugin folder.
    """
    return asyncio.run(_run(session, kind, options, sink, preview))


async def _run(session: StackSession, kind: str, options: Options, sink: Sink, preview: bool) -> Summary:
    project, configuration = session.project, session.configuration
    found: list[Summary] = []
    stopped, aborted = asyncio.Event(), asyncio.Event()
    started = asyncio.get_running_loop().time()

    def tell(event: Event) -> None:
        if isinstance(event, Summary):
            found.append(event)
        sink(event)

    def emit(event: Event) -> None:
        # Of a run that was ended at once, how each of its parts broke says nothing.
        if not aborted.is_set():
            tell(event)

    run_options = RunOptions(
        project=project.name,
        stack=session.stack,
        dry_run=preview,
        parallel=options.parallel,
        targets=Targets(options.targets),
        target_dependents=options.target_dependents,
        replace=Targets(options.replace),
        continue_on_error=options.continue_on_error,
        refresh=options.refresh,
        config=configuration.values,
        secret_keys=configuration.secret_keys,
    )
    finder = Finder(_declared(project.plugins, project.root), dict(session.environment))
    deployment = Deployment(run_options, session.load(), emit, finder, session.persist, session.stack_outputs)
    if options.clear_pending_creates:
        deployment.journal.forget_creates()
    # Assets are read where the program runs.
    folder = project.main if project.main.is_dir() else project.main.parent
    monitor = Monitor(deployment, folder, project.root)
    engine = Engine(emit, deployment.stopping)

    def add(server: grpc.aio.Server) -> None:
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)

    program: Program | None = None
    async with serving(add) as address:
        monitor.address = deployment.registry.engine_address = address
        if kind == "up":
            launch = Launch(
                project.main,
                project.root,
                interpreter_of(project.root, project.runtime_options),
                dict(session.environment),
            )
            program = Program(launch, run_options, emit, deployment.stopping, monitor.finished)
            program.monitor_address = address
        with _signals(deployment, program, emit, stopped, aborted):
            try:
                await (deployment.refresh() if kind == "refresh" else deployment.update(program))
            except asyncio.CancelledError:
                if not aborted.is_set():
                    raise
            finally:
                await deployment.registry.gone()
                if program is not None:
                    await program.close()
    if aborted.is_set() and not found:
        tell(Diagnostic("error", "interrupted again: what was under way is kept in the state as pending operations"))
        seconds = asyncio.get_running_loop().time() - started
        tell(Summary(dict(deployment.changes), seconds, succeeded=False, preview=preview))
    return dataclasses.replace(found[-1], stopped=stopped.is_set())


@contextlib.contextmanager
def _signals(
    deployment: Deployment, program: Program | None, emit: Sink, stopped: asyncio.Event, aborted: asyncio.Event
) -> Iterator[None]:
    """The first SIGINT or SIGTERM begins nothing more and sets `stopped`; the second ends at once, sets `aborted`."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def handle() -> None:
        if not stopped.is_set():
            stopped.set()
            text = "stopping: nothing more is begun; once more to stop at once"
            emit(Diagnostic("warning", text, at_once=True))
            deployment.cancel()
            return
        if aborted.is_set():
            return
        aborted.set()
        deployment.abort()
        if program is not None:
            program.kill()
        if task is not None:
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _declared(plugins: dict[str, object], root: Path) -> list[ProjectPlugin]:
    """`plugins.providers` of Pulumi.yaml. Raises `EngineError` for entries that are not as they must be."""
    entries = plugins.get("providers") or []
    if not isinstance(entries, list):
        raise EngineError("Pulumi.yaml: `plugins.providers` must be a list")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not entry.get("name") or not entry.get("path"):
            raise EngineError("Pulumi.yaml: each of `plugins.providers` needs `name` and `path`")
        path = Path(str(entry["path"])).expanduser()
        version = str(entry.get("version") or "")
        found.append(ProjectPlugin(str(entry["name"]), (root / path).resolve(), version))
    return found
