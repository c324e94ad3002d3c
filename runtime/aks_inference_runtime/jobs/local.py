"""A job as a process on this machine, in an environment of its packages."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.jobs import saving
from aks_inference_runtime.jobs.model import LOG, Job, JobFailed, Result, Say, ended, failure
from aks_inference_runtime.local.environments import EnvironmentStore, cache_root

_LINE_LIMIT = 1024 * 1024
_END_S = 15.0
"""The guard's own signals take 5 s at most."""
_DRAIN_S = 2.0
"""Of a log that something holds open which left the job's process group."""
PRIVATE = "PULUMI_"
"""Variables with this prefix (passphrases, tokens) are the deployment's, not the script's."""


async def run_local(
    job: Job, packages: Sequence[str], say: Say, progress: Callable[[str], None], environments: Path | None = None
) -> Result:
    """Runs it to its end. `say`: each line of its log; `progress`: what is done now. `environments`: where they are
    kept. Raises JobFailed; InvalidInput and OperationFailed where its environment cannot be built. Cancelled or
    killed, nothing of it runs on, and its temporary folder goes."""
    built = await EnvironmentStore(environments or cache_root()).get(packages, progress)
    begin = time.monotonic()
    part = await asyncio.to_thread(saving.begin, job)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="aks-inference-job-"))
    working = folder / job.project
    lines: list[str] = []
    told = "exit 1"
    try:
        await asyncio.to_thread(_lay_out, job, working)
        progress(f"runs {job.entry_script}")
        command = [str(built.python), job.entry_script, *job.arguments]
        environment = _environment(os.environ, built.folder, job)
        async with contextlib.AsyncExitStack() as stack:
            written, log = await _pipe()
            stack.callback(log.close)
            try:
                guard = await _start(folder, working, job.longest_s, command, environment, written)
            finally:
                os.close(written)
            stack.push_async_callback(_stop, guard)
            told = await _follow(guard, log.reader, part / LOG, lines, say)
            await asyncio.to_thread(saving.take, working, part)
    finally:
        # The guard does that, too: who comes first does it.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
        seconds = time.monotonic() - begin
        code = int(told.partition(" ")[2]) if told.startswith("exit ") else None
        await asyncio.shield(asyncio.to_thread(saving.finish, job, part, code, seconds))
    if (wrong := _judge(job, told, lines)) is not None:
        raise wrong
    return Result(job.place, seconds)


def _judge(job: Job, told: str, lines: list[str]) -> JobFailed | None:
    if told == "late":
        return failure(job, None, f"`{job.entry_script}` was ended after {job.longest_s / 60:g} minutes", lines)
    return ended(job, int(told.partition(" ")[2]), lines)


def _lay_out(job: Job, working: Path) -> None:
    working.mkdir(parents=True)
    for name, source in job.files.items():
        target = working / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _environment(own: Mapping[str, str], folder: Path, job: Job) -> dict[str, str]:
    kept = {name: value for name, value in own.items() if not name.startswith((PRIVATE, "PYTHON", "VIRTUAL_ENV"))}
    path = f"{folder / 'bin'}{os.pathsep}{own.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(folder), **job.told}


@dataclass(frozen=True)
class _Log:
    """The reading end of a job's log: ours to close, also where something that outlived the job holds the other."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    def close(self) -> None:
        self.transport.close()


async def _pipe() -> tuple[int, _Log]:
    """The writing end and the reading one."""
    read, written = os.pipe()
    reader = asyncio.StreamReader(_LINE_LIMIT)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
    )
    return written, _Log(reader, transport)


async def _start(
    folder: Path, working: Path, longest_s: float, command: Sequence[str], environment: Mapping[str, str], log: int
) -> asyncio.subprocess.Process:
    guard = [sys.executable, "-I", "-m", "aks_inference_runtime.jobs.guard"]
    try:
        return await asyncio.create_subprocess_exec(
            *guard,
            str(folder),
            str(longest_s),
            str(working),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
    except OSError as error:
        raise OperationFailed(f"the job cannot be started: {error}") from None


async def _follow(
    guard: asyncio.subprocess.Process, log: asyncio.StreamReader, kept: Path, lines: list[str], say: Say
) -> str:
    """The log into its file and to whoever listens; what the guard says of the end."""
    assert guard.stdout is not None  # noqa: S101 - PIPE above
    reading = asyncio.create_task(_read(log, kept, lines, say))
    try:
        group = (await guard.stdout.readline()).decode().partition(" ")[2].strip()
        told = (await guard.stdout.readline()).decode().strip()
        if not told and group:
            # Somebody killed the guard: what it guarded must not run on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading), _DRAIN_S)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return told or "exit -9"


async def _read(log: asyncio.StreamReader, kept: Path, lines: list[str], say: Say) -> None:
    rest = b""
    try:
        with kept.open("ab", buffering=0) as file:
            while piece := await log.read(64 * 1024):
                file.write(piece)
                *whole, rest = (rest + piece).split(b"\n")
                for raw in whole:
                    _line(raw, lines, say)
                if len(rest) >= _LINE_LIMIT:
                    _line(rest, lines, say)
                    rest = b""
    finally:
        # Also where something outlived the job and still holds the log open.
        if rest:
            _line(rest, lines, say)


def _line(raw: bytes, lines: list[str], say: Say) -> None:
    text = raw.decode("utf-8", "replace").rstrip("\r")
    lines.append(text)
    del lines[:-200]
    say(text)


async def _stop(guard: asyncio.subprocess.Process) -> None:
    """It ends what is left, and itself, when nobody holds its standard input any more."""
    assert guard.stdin is not None  # noqa: S101 - PIPE above
    guard.stdin.close()

    async def over() -> None:
        assert guard.stdout is not None  # noqa: S101 - PIPE above
        await asyncio.gather(guard.stdout.read(), guard.wait())

    try:
        await asyncio.shield(asyncio.wait_for(over(), _END_S))
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            guard.kill()
        await guard.wait()
