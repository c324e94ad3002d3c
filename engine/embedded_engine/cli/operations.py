"""`preview`, `up`, `refresh` and `destroy`: the flags, the question before anything is done, and what is printed."""

import functools
import sys
from collections.abc import Callable, Set
from typing import Any, TypeVar

import click

from embedded_engine.cli.group import NamedFlags
from embedded_engine.cli.invocation import Invocation, common, json_option, print_json, stack_option
from embedded_engine.cli.output import INTERRUPTED, standard_output
from embedded_engine.deploy.run import Options, run
from embedded_engine.display import Display
from embedded_engine.errors import EngineError, UsageError
from embedded_engine.events import Diagnostic, Digest, Event, Sink, Summary, line
from embedded_engine.session import StackSession
from embedded_engine.wirejson import dumps

_DEFAULT_PARALLEL = 16
_UNCHANGED = ("same", "refresh", "read")
_VERBS = {"up": "update", "refresh": "refresh", "destroy": "destroy"}

Command = TypeVar("Command", bound=Callable[..., Any])


class UnexpectedChangesError(EngineError):
    """`--expect-no-changes`, and there were some."""


class DeclinedError(UsageError):
    """The person said no."""


def _choosing(command: Command) -> Command:
    """The flags that say what is worked on and how it is shown."""
    options = (
        click.option(
            "--target", "-t", "targets", multiple=True, metavar="URN", help="Only this resource; may be repeated."
        ),
        click.option("--target-dependents", is_flag=True, help="Also what depends on the targets."),
        click.option(
            "--parallel", "-p", type=click.IntRange(min=1), default=_DEFAULT_PARALLEL, help="Most steps at once."
        ),
        click.option("--diff", is_flag=True, help="Every step with its properties."),
        click.option("--show-secrets", is_flag=True, help="Show what is secret in the stack's outputs."),
        click.option("--expect-no-changes", is_flag=True, help="Fail if anything changes."),
        click.option("--message", "-m", metavar="TEXT", help="Accepted; this backend keeps no history to put it in."),
    )
    return functools.reduce(lambda inner, option: option(inner), reversed(options), command)


def _replacing(command: Command) -> Command:
    """The flags of the commands that run the program."""
    options = (
        click.option(
            "--replace", "replace", multiple=True, metavar="URN", help="Replace this resource; may be repeated."
        ),
        click.option(
            "--target-replace", multiple=True, metavar="URN", help="The same as `--target URN --replace URN`."
        ),
    )
    return functools.reduce(lambda inner, option: option(inner), reversed(options), command)


def _changing(command: Command) -> Command:
    """The flags of the commands that change something."""
    options = (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--skip-preview", "-f", is_flag=True, help="No preview before it."),
    )
    return functools.reduce(lambda inner, option: option(inner), reversed(options), command)


_refresh_option = click.option(
    "--refresh",
    "-r",
    is_flag=False,
    flag_value="true",
    type=click.BOOL,
    help="Refresh the state first; default: what `options.refresh` of Pulumi.yaml says.",
)
_continue_option = click.option(
    "--continue-on-error", is_flag=True, help="Go on with what does not depend on a failure."
)


@click.command(cls=NamedFlags)
@stack_option
@json_option
@_choosing
@_replacing
@_refresh_option
@common
def preview(call: Invocation, stack: str | None, json_output: bool, **flags: Any) -> int:  # noqa: ANN401
    """Show what `up` would do."""
    session = call.session(stack)
    options = _options(session, flags)
    if not json_output:
        return _finish(_shown(call, session, "up", options, flags, previewing=True)[0], flags)
    digest = Digest()
    summary = run(session, "up", options, digest.add, preview=True)
    print_json(digest.to_json())
    return _finish(summary, flags)


@click.command(cls=NamedFlags)
@stack_option
@json_option
@_choosing
@_replacing
@_refresh_option
@_continue_option
@_changing
@common
def up(call: Invocation, stack: str | None, json_output: bool, **flags: Any) -> int:  # noqa: ANN401
    """Create, update and delete resources so that the stack is what the program says."""
    return _change(call, "up", stack, json_output, flags)


@click.command(cls=NamedFlags)
@stack_option
@json_option
@_choosing
@click.option(
    "--clear-pending-creates",
    is_flag=True,
    help="Forget what an interrupted run was creating; look first whether it is there.",
)
@_changing
@common
def refresh(call: Invocation, stack: str | None, json_output: bool, **flags: Any) -> int:  # noqa: ANN401
    """Bring the state in line with what the providers say."""
    return _change(call, "refresh", stack, json_output, flags)


@click.command(cls=NamedFlags)
@stack_option
@json_option
@_choosing
@_refresh_option
@_continue_option
@_changing
@common
def destroy(call: Invocation, stack: str | None, json_output: bool, **flags: Any) -> int:  # noqa: ANN401
    """Delete every resource of the stack; the stack itself stays."""
    return _change(call, "destroy", stack, json_output, flags)


def _options(session: StackSession, flags: dict[str, Any]) -> Options:
    both = tuple(flags.get("target_replace", ()))
    refresh = flags.get("refresh")
    return Options(
        parallel=flags["parallel"],
        targets=(*flags["targets"], *both),
        target_dependents=flags["target_dependents"],
        replace=(*flags.get("replace", ()), *both),
        refresh=session.project.refresh_always if refresh is None else refresh,
        continue_on_error=bool(flags.get("continue_on_error", False)),
        clear_pending_creates=bool(flags.get("clear_pending_creates", False)),
    )


def _change(call: Invocation, kind: str, stack: str | None, json_output: bool, flags: dict[str, Any]) -> int:
    if not call.interactive and not (flags["yes"] or flags["skip_preview"]):
        raise UsageError("--yes or --skip-preview must be passed in to proceed when running in non-interactive mode")
    session = call.session(stack)
    options = _options(session, flags)
    with session.locked(lambda text: click.echo(f"warning: {text}", err=True)):
        session.ensure_salt()
        # A wrong passphrase must show before anything is done whose outcome could then not be written.
        session.crypter()
        if json_output:
            return _finish(run(session, kind, options, _json_lines()), flags)
        notes: Set[Diagnostic] = frozenset()
        if not flags["skip_preview"]:
            summary, display = _shown(call, session, kind, options, flags, previewing=True)
            if summary.stopped or not summary.succeeded:
                return _finish(summary, flags)
            if not flags["yes"]:
                _ask(kind, display)
            notes = display.notes()
        return _finish(_shown(call, session, kind, options, flags, previewing=False, notes=notes)[0], flags)


def _shown(
    call: Invocation,
    session: StackSession,
    kind: str,
    options: Options,
    flags: dict[str, Any],
    previewing: bool,
    notes: Set[Diagnostic] = frozenset(),
) -> tuple[Summary, Display]:
    live = sys.stdout.isatty() and call.environment.get("TERM", "dumb") != "dumb" and not flags["diff"]
    display = Display(
        standard_output().write,
        kind,
        session.stack,
        previewing,
        diff=flags["diff"],
        color=call.color,
        live=live,
        show_secrets=flags["show_secrets"],
        shown=notes,
    )
    try:
        return run(session, kind, options, display, preview=previewing), display
    finally:
        display.close()


def _ask(kind: str, display: Display) -> None:
    while True:
        answer = click.prompt(
            f"Do you want to perform this {_VERBS[kind]}?", type=click.Choice(["yes", "no", "details"]), default="no"
        )
        if answer == "yes":
            return
        if answer == "no":
            raise DeclinedError(f"confirmation declined, not proceeding with the {_VERBS[kind]}")
        click.echo("\n".join(display.change_lines()))


def _json_lines() -> Sink:
    sequence, output = iter(range(sys.maxsize)), standard_output()

    def write(event: Event) -> None:
        output.write(dumps(line(event, next(sequence))) + "\n")

    return write


def _finish(summary: Summary, flags: dict[str, Any]) -> int:
    if summary.stopped:
        return INTERRUPTED
    if not summary.succeeded:
        return 1
    if flags["expect_no_changes"] and any(n for op, n in summary.changes.items() if op not in _UNCHANGED):
        raise UnexpectedChangesError("no changes were expected but changes were proposed or made")
    return 0
