"""Running a tool: its output goes to the user line by line, its tail into the error."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aks_inference_runtime.api.output import lines_of
from aks_inference_runtime.images.errors import BuildFailed

Progress = Callable[[str], None]
TAIL_LINES = 30
_END_S = 5.0


async def run_tool(
    command: Sequence[str],
    progress: Progress,
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    output: bool = True,
) -> None:
    """Runs a tool to its end. Raises BuildFailed with the tail of its output when it fails.

    `environment`: beside this process's own. `output`: whether all that it writes is told, or what it says on stderr
    alone. A cancelled call ends the tool and everything it started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if output else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.STDOUT if output else asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(
            f"{what}: {command[0]} cannot be started ({error}); install it or choose another builder"
        ) from None
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        said = process.stdout or process.stderr
        assert said is not None  # noqa: S101 - asked for by PIPE
        async for line in lines_of(said):
            tail.append(line)
            progress(line)
        code = await process.wait()
    except BaseException:
        await _end(process)
        raise
    if code != 0:
        log = "\n".join(tail)
        raise BuildFailed(f"{what} failed with code {code}; the end of its log:\n{log}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """First kindly, so that the tool unmounts and unlocks what it holds."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S)
            return
