"""A plugin's process: started in a process group of its own, its port read, its output passed on, and ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from embedded_engine.errors import EngineError
from embedded_engine.plugins.find import Launch

START_LIMIT_S = 60.0
# How long a plugin may take to end by itself once it was told to.
END_LIMIT_S = 2.0
# A plugin must end also when the engine is killed.
_TETHERED = (sys.executable, "-I", "-S", str(Path(__file__).with_name("tether.py")))
# A line of output beyond this is told in pieces.
_LINE_LIMIT = 1024 * 1024


class PluginStartError(EngineError):
    """The plugin ended, or said no port."""


class PluginProcess:
    """One running plugin. `told(stream, line)` gets what it prints after the port; stream is `out` or `err`."""

    def __init__(self, name: str, told: Callable[[str, str], None]) -> None:
        self.name = name
        self.port = 0
        self._told = told
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._errors: list[str] = []

    async def start(self, launch: Launch, engine_address: str, environment: Mapping[str, str]) -> None:
        """Raises `PluginStartError`."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_TETHERED,
                str(os.getpid()),
                *launch.command,
                engine_address,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=launch.working_directory,
                env=dict(environment),
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            raise PluginStartError(f"plugin {self.name} cannot be started: {error}") from error
        out, err = self._process.stdout, self._process.stderr
        assert out is not None and err is not None  # noqa: S101, PT018 - asked for above
        self._readers.append(asyncio.create_task(self._read(err, "err")))
        try:
            line = await asyncio.wait_for(out.readline(), START_LIMIT_S)
        except TimeoutError:
            await self.end()
            raise PluginStartError(f"plugin {self.name} did not say its port within {START_LIMIT_S:g} s") from None
        text = line.decode(errors="replace").strip()
        if not text.isdigit():
            await self.end()
            said = "\n".join(self._errors[-20:])
            what = f"said {text!r} where its port was expected" if text else "ended before it said its port"
            raise PluginStartError(f"plugin {self.name} {what}" + (f":\n{said}" if said else ""))
        self.port = int(text)
        for early in self._errors:
            self._pass_on("err", early)
        self._readers.append(asyncio.create_task(self._read(out, "out")))

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # a line beyond the limit: what was read of it is dropped
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\r\n")
            if self.port:
                self._pass_on(name, text)
            else:
                self._errors.append(text)

    def _pass_on(self, name: str, text: str) -> None:
        if text.strip():
            self._told(name, text)

    async def end(self) -> None:
        """Asks it to end, then ends it and what else is in its process group. Its id may be another's afterwards."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_LIMIT_S)
        self.kill()
        await process.wait()
        self._process = None
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def kill(self) -> None:
        """Ends the process group at once."""
        if self._process is not None:
            _signal(self._process.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
