"""Command groups as the pulumi CLI has them: aliases, and flags that are named when they are not supported."""

import difflib
import importlib
from typing import Any

import click

from embedded_engine.errors import UsageError


class NamedFlags(click.Command):
    """A command that says of an unknown flag whether the pulumi CLI has it."""

    flag_hint = ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag = error.option_name
            if flag in CLI_ONLY:
                raise UsageError(f"`{flag}` of the pulumi CLI is not supported by this engine") from None
            hint = f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else self.flag_hint
            raise UsageError(f"unknown flag: {flag}{hint}") from None


class Group(NamedFlags, click.Group):
    """A group whose commands may live in modules that are imported only when they are run.

    `lazy`: `module:attribute` by name. `aliases`: other names of commands. Flags that stand before a command are the
    command's, as the pulumi CLI has it: `-C folder up`, `stack --stack dev output`.
    """

    command_class = NamedFlags
    flag_hint = "; a command's own flags stand after the command"

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - as click has it
        lazy: dict[str, str] | None = None,
        aliases: dict[str, str] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **options)
        self._lazy = lazy or {}
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self._aliases.get(cmd_name, cmd_name)
        if name not in self._lazy:
            return super().get_command(ctx, name)
        module, _, attribute = self._lazy[name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self._lazy[name]} is no command")
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = self._leading_flags(args)
        if 0 < flags < len(args):
            args = [args[flags], *args[:flags], *args[flags + 1 :]]
        return super().parse_args(ctx, args)

    def _leading_flags(self, args: list[str]) -> int:
        """How many arguments before the command are flags of this group and their values; 0 where one is not."""
        known = {name: option for option in self.params if isinstance(option, click.Option) for name in option.opts}
        place = 0
        while place < len(args) and args[place].startswith("-"):
            text = args[place]
            name, equals, _ = text.partition("=") if text.startswith("--") else (text[:2], text[2:], "")
            option = known.get(name)
            if option is None or option.is_eager:
                return 0
            place += 1 if option.is_flag or equals else 2
        return place

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            words = " ".join([ctx.info_name or "", args[0]] if ctx.parent else [args[0]])
            commands = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], [*commands, *self._aliases], n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            known = ", ".join(commands)
            raise UsageError(f"unknown or unsupported command `{words}`: there are {known}{hint}") from None


# Flags of `pulumi` 3.2xx on the commands that this engine has, and that it does not know.
_NAMES = """
    allow-empty attach-debugger client config config-file config-path copilot
    copy-config-from debug disable-integrity-checking emoji environment event-log events exclude
    exclude-dependents exclude-protected exec-agent exec-kind fully-qualify-stack-names ignore-remote-config
    import-file import-pending-creates include-environment key logflow logtostderr memprofilerate neo open
    otel-traces plaintext-all plan policy-pack policy-pack-config preview-only profiling remote
    remote-agent-pool-id remote-env remote-env-secret remote-git-auth-access-token remote-git-branch
    remote-git-commit remote-git-repo-dir remote-inherit-settings remote-skip-install-dependencies remove
    remove-backups run-program save-plan secrets-provider shell show-config show-full-output show-ids
    show-name show-policy-remediations show-reads show-replacement-steps show-sames show-urns
    skip-pending-creates strict suppress-outputs suppress-permalink suppress-progress suppress-stream-logs tag
    target-exclude teams tracing tracing-header type verbose version
"""
CLI_ONLY = frozenset(f"--{name}" for name in _NAMES.split())
