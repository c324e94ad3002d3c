"""A Pulumi Python program as a source of registrations: a child process that talks to the monitor."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError, ProgramEndedError
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic, Sink

_RUNNER = Path(__file__).with_name("runner.py")
# Exit status of the runner: it failed, and the engine knows why.
_TOLD = 32
# And: it ran to its end.
_DONE = 33
_END_LIMIT_S = 2.0
# After it said that everything is registered, a program may take this long to end by itself.
_LEAVE_LIMIT_S = 10.0
_LINE_LIMIT = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Launch:
    """`program` is the folder or file, `root` the folder of Pulumi.yaml, `interpreter` the Python that runs it."""

    program: Path
    root: Path
    interpreter: str = sys.executable
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(os.environ))


def interpreter_of(root: Path, options: Mapping[str, object]) -> str:
    """The Python that `runtime.options` of the project names. Raises `EngineError` if it is not there."""
    toolchain = str(options.get("toolchain") or "pip")
    if toolchain not in ("pip", "uv"):
        raise EngineError(f"Pulumi.yaml: the toolchain {toolchain!r} is not supported; use pip or uv")
    named = options.get("virtualenv") or (".venv" if toolchain == "uv" else None)
    if not named:
        return sys.executable
    python = root / str(named) / "bin" / "python"
    if not python.exists():
        raise EngineError(
            f"Pulumi.yaml names the virtual environment {root / str(named)}, which does not exist; "
            "create it and install the program's requirements there"
        )
    return str(python)


class Program:
    """`finished` is set by the monitor when the program has registered everything and waits to be let go."""

    def __init__(
        self, launch: Launch, options: Options, emit: Sink, stopping: asyncio.Event, finished: asyncio.Event
    ) -> None:
        self.monitor_address = ""
        self._launch = launch
        self._options = options
        self._emit = emit
        self._stopping = stopping
        self._finished = finished
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until everything is registered. Raises `BailError` if why it failed is known, else `EngineError`."""
        program = self._launch.program
        main = program / "__main__.py" if program.is_dir() else program
        if not main.is_file():
            raise EngineError(f"there is no program to run: {main} does not exist")
        options = self._options
        given = {
            "program": str(program),
            "root": str(self._launch.root),
            "monitor": self.monitor_address,
            "engine": self.monitor_address,
            "project": options.project,
            "stack": options.stack,
            "organization": options.organization,
            "parallel": options.parallel,
            "dry_run": options.dry_run,
            "parent": os.getpid(),
        }
        environment = {
            **self._launch.environment,
            "PULUMI_CONFIG": json.dumps(dict(options.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(sorted(options.secret_keys)),
        }
        process = self._process = await asyncio.create_subprocess_exec(
            self._launch.interpreter,
            "-u",
            str(_RUNNER),
            json.dumps(given),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=program if program.is_dir() else program.parent,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - asked for above
        self._readers = [
            asyncio.create_task(self._read(process.stdout, "info")),
            asyncio.create_task(self._read(process.stderr, "info#err")),
        ]
        ended = asyncio.ensure_future(process.wait())
        finished = asyncio.ensure_future(self._finished.wait())
        await asyncio.wait((ended, finished), return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        if not ended.done():
            return
        await asyncio.gather(*self._readers)
        status = ended.result()
        if status == _TOLD:
            raise BailError("the program failed")
        if status == _DONE or (status == 0 and self._finished.is_set()):
            return
        if status < 0:
            raise EngineError(f"the program was ended by signal {signal.Signals(-status).name}")
        if status == 0:
            # What it has not declared yet would be deleted.
            raise EngineError(
                "the program ended with 0 before it was complete (os._exit, sys.exit in an apply, or another program "
                "in its place); nothing is deleted; let it end with its last line"
            )
        text = f"an unhandled error occurred: program exited with non-zero exit code: {status}"
        raise ProgramEndedError(text)

    async def _read(self, stream: asyncio.StreamReader, severity: str) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # longer than any line to be read
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\r\n")
            if text.strip() and not self._stopping.is_set():
                self._emit(Diagnostic(severity, text))

    async def stop(self) -> None:
        """Ends the program at once."""
        self.kill()
        await self._gone(_END_LIMIT_S)

    async def close(self) -> None:
        """Lets it end by itself, if it has not; then ends what is left of it."""
        await self._gone(_LEAVE_LIMIT_S)

    async def _gone(self, limit_s: float) -> None:
        if self._process is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), limit_s)
        self.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
