"""What every command shares: its flags, the environment, the way to a stack, and how errors are shown."""

import dataclasses
import functools
import getpass
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from embedded_engine.backend import FileBackend, StackName, backend_folder, parse_stack_name
from embedded_engine.backend.files import write_atomically
from embedded_engine.cli.flags import EVERYWHERE
from embedded_engine.config import Project, load_project
from embedded_engine.errors import StackNotFoundError, UsageError
from embedded_engine.model import Json
from embedded_engine.session import StackSession
from embedded_engine.wirejson import dumps

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One call of the program. `folder` is where the project is looked for; `interactive`: a person can be asked."""

    folder: Path
    environment: Mapping[str, str]
    interactive: bool
    color: bool

    @functools.cached_property
    def project(self) -> Project:
        return load_project(self.folder)

    @functools.cached_property
    def home(self) -> Path:
        """Pulumi's own folder, `~/.pulumi` unless PULUMI_HOME says otherwise."""
        given = self.environment.get("PULUMI_HOME")
        return Path(given).absolute() if given else Path.home() / ".pulumi"

    @functools.cached_property
    def backend(self) -> FileBackend:
        return FileBackend(backend_folder(self.environment, self.project.backend_url, Path.home()))

    def name(self, text: str) -> StackName:
        return parse_stack_name(text, self.project.name)

    def chosen(self, stack: str | None) -> StackName:
        """The stack of `--stack`, of PULUMI_STACK, or the one selected before. Raises `UsageError`."""
        text = stack or self.environment.get("PULUMI_STACK") or self.selected()
        if not text:
            raise UsageError("no stack selected: name one with `--stack`, or select one with `stack select`")
        return self.name(text)

    def session(self, stack: str | None, must_exist: bool = True) -> StackSession:
        """The stack, opened. Raises `EngineError`s for a missing stack and for files that are wrong."""
        name = self.chosen(stack)
        if must_exist and not self.backend.exists(name):
            # Reading says more where the state is there in another form.
            self.backend.read(name)
        return StackSession(self.project, name, self.backend, self.environment, self.ask_passphrase)

    @property
    def ask_passphrase(self) -> Callable[[], str] | None:
        if not self.interactive:
            return None
        return lambda: getpass.getpass("Enter your passphrase to unlock config/secrets: ")

    def confirm(self, question: str) -> bool:
        """Asks a person; raises `UsageError` where there is none to ask."""
        if not self.interactive:
            raise UsageError("--yes must be passed in to proceed when running in non-interactive mode")
        return click.confirm(question)

    # The selected stack is kept where the CLI keeps it.

    def _selection(self) -> Path:
        digest = hashlib.sha1(str(self.project.file).encode(), usedforsecurity=False).hexdigest()
        return self.home / "workspaces" / f"{self.project.name}-{digest}-workspace.json"

    def selected(self) -> str:
        return str(self._workspace().get("stack") or "")

    def select(self, name: StackName | None) -> None:
        content = self._workspace()
        content.pop("stack", None)
        if name is not None:
            content["stack"] = str(name)
        write_atomically(self._selection(), dumps(content).encode())

    def _workspace(self) -> Json:
        try:
            content = json.loads(self._selection().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Nothing was selected; a damaged selection is as good as none.
            return {}
        return content if isinstance(content, dict) else {}

    def require(self, name: StackName) -> StackName:
        if not self.backend.exists(name):
            raise StackNotFoundError(f"no stack named '{name.stack}' found in {self.backend.url}")
        return name


def common(command: Command) -> Command:
    """Gives a command the flags that all have, and an `Invocation` as its first argument."""

    @functools.wraps(command)
    def run(*args: Any, cwd: Path | None, non_interactive: bool, color: str, **options: Any) -> Any:  # noqa: ANN401
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        environment = dict(os.environ)
        colored = color == "always" or (color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in environment)
        invocation = Invocation(
            folder=(cwd or Path.cwd()).resolve(),
            environment=environment,
            interactive=terminal and not non_interactive and not options.get("json_output"),
            color=colored,
        )
        return command(invocation, *args, **options)

    for option in reversed(EVERYWHERE):
        run = option(run)
    return run  # type: ignore[return-value]  # the wrapper takes the place of the command


def stack_option(command: Command) -> Command:
    return click.option("--stack", "-s", metavar="NAME", help="The stack; default: the selected one.")(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "-j", "json_output", is_flag=True, help="JSON in place of text.")(command)


def print_json(value: object, indent: int = 2) -> None:
    click.echo(dumps(value, indent))
