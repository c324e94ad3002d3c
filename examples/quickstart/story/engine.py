"""Runs the Pulumi program: with the embedded engine, or with the pulumi CLI where that is asked for."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STACK = "quickstart"
STOP_LIMIT_S = 60


class StoryError(Exception):
    """The story cannot go on; the text says why."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that it said."""
        return f"{self.stdout.rstrip()}\n{self.stderr.rstrip()}".strip()


class Engine:
    """Commands of one stack, with state and secrets in a folder of the story's own."""

    def __init__(self, name: str, project: Path, work: Path) -> None:
        executable = (
            str(Path(sys.executable).parent / "embedded-engine") if name == "embedded" else shutil.which("pulumi")
        )
        if executable is None:
            raise StoryError("--engine pulumi: no `pulumi` on PATH; leave the option out to use the embedded engine")
        self._executable = executable
        self._project = project
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")} | {
            "PULUMI_BACKEND_URL": f"file://{work / 'state'}",
            "PULUMI_HOME": os.environ.get("PULUMI_HOME", str(work / "home")),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(work / "passphrase"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "NO_COLOR": "1",
        }

    @property
    def destroy_command(self) -> str:
        """What a person types to end what --keep left running."""
        names = ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE")
        # A passphrase that the user's shell exports would win over the file.
        settings = ["env", "-u", "PULUMI_CONFIG_PASSPHRASE"]
        settings += [f"{name}={shlex.quote(self._environment[name])}" for name in names]
        where = ["--stack", STACK, "--yes", "--cwd", str(self._project)]
        commands = (["destroy", "--skip-preview"], ["stack", "rm"])
        return " && ".join(" ".join([*settings, shlex.join([self._executable, *c, *where])]) for c in commands)

    async def run(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> Done:
        """Runs one command to its end; `on_line` hears each line of its output as it comes."""
        process = await asyncio.create_subprocess_exec(
            self._executable,
            *arguments,
            "--stack",
            STACK,
            "--non-interactive",
            cwd=self._project,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
            start_new_session=True,
        )
        try:
            streams = await asyncio.gather(
                _read(process.stdout, on_line), _read(process.stderr, on_line), process.wait()
            )
        except BaseException:
            # Ctrl-C reached only this process: the engine is asked to stop cleanly and given the time for it.
            await _stop(process)
            raise
        return Done(streams[2], streams[0], streams[1])

    async def must(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> Done:
        """The same; raises StoryError with all that it said when it fails."""
        done = await self.run(*arguments, on_line=on_line)
        if done.code:
            raise StoryError(f"{' '.join(arguments)} ended with {done.code}:\n{done.text}")
        return done

    async def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets included."""
        done = await self.must("stack", "output", "--json", "--show-secrets")
        return dict(json.loads(done.stdout))

    async def configure(self, values: Mapping[str, str]) -> None:
        """Sets configuration values of the stack; `a.b` names a property of an object."""
        for key, value in values.items():
            path = ["--path"] if "." in key else []
            await self.must("config", "set", *path, key, value)


async def _read(stream: asyncio.StreamReader | None, on_line: Callable[[str], None] | None) -> str:
    lines = []
    while stream is not None and (line := await stream.readline()):
        text = line.decode(errors="replace")
        lines.append(text)
        if on_line is not None:
            on_line(text.rstrip())
    return "".join(lines)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
