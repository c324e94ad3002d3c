"""Command groups as the pulumi CLI has them: aliases, and flags that are named when they are not supported."""

import importlib
from typing import Any

import click

from embedded_engine.errors import UsageError


class NamedFlags(click.Command):
    """A command that says of an unknown flag whether the pulumi CLI has it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag = error.option_name
            if flag in CLI_ONLY:
                raise UsageError(f"`{flag}` of the pulumi CLI is not supported by this engine") from None
            hint = f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else ""
            raise UsageError(f"unknown flag: {flag}{hint}") from None


class Group(NamedFlags, click.Group):
    """A group whose commands may live in modules that are imported only when they are run.

    `lazy`: `module:attribute` by name. `aliases`: other names of commands.
    """

    command_class = NamedFlags

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            words = " ".join([ctx.info_name or "", args[0]] if ctx.parent else [args[0]])
            known = ", ".join(self.list_commands(ctx))
            raise UsageError(f"unknown or unsupported command `{words}`: there are {known}") from None


# Flags of `pulumi` 3.2xx on the commands that this engine has, and that it does not know.
_NAMES = """
    allow-empty attach-debugger clear-pending-creates client config config-file config-path copilot
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
