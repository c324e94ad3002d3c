"""`config`: the configuration of a stack."""

import json
import sys

import click

from embedded_engine.cli.group import Group
from embedded_engine.cli.invocation import Invocation, common, json_option, print_json, stack_option
from embedded_engine.cli.tables import print_table
from embedded_engine.config import full_key
from embedded_engine.config.edit import remove_value, set_value
from embedded_engine.config.paths import get_path, parse_path, remove_path, set_path
from embedded_engine.config.resolve import Configuration
from embedded_engine.config.settings import Entry
from embedded_engine.errors import ConfigError
from embedded_engine.model import Json, Value
from embedded_engine.paths import Path
from embedded_engine.session import StackSession
from embedded_engine.values import REDACTED


@click.group(cls=Group, invoke_without_command=True)
@stack_option
@json_option
@click.option("--show-secrets", is_flag=True, help="Show what is secret.")
@common
def config(call: Invocation, stack: str | None, json_output: bool, show_secrets: bool) -> None:
    """Show the configuration; `config set`, `get` and `rm` change it."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    session = call.session(stack)
    resolved = session.configuration_as_it_is(show_secrets)
    if json_output:
        print_json({key: _as_json(session, resolved, key, show_secrets) for key in sorted(resolved.values)})
        return
    rows = [("KEY", "VALUE")]
    prefix = f"{call.project.name}:"
    for key in sorted(resolved.values):
        secret = key in resolved.secret_keys and not show_secrets
        rows.append((key.removeprefix(prefix), REDACTED if secret else resolved.values[key]))
    print_table(rows)


@config.command()
@click.argument("key")
@stack_option
@json_option
@click.option("--path", is_flag=True, help="The key is a path into an object or a list.")
@common
def get(call: Invocation, key: str, stack: str | None, json_output: bool, path: bool) -> None:
    """Show one value, also if it is secret."""
    session = call.session(stack)
    top, rest = _split(call, key, path)
    resolved = session.configuration_as_it_is(show_secrets=True)
    if top not in resolved.values:
        raise ConfigError(f"configuration key '{key}' not found for stack '{session.stack}'")
    if json_output and not rest:
        print_json(_as_json(session, resolved, top, show=True))
        return
    value: Value = resolved.values[top]
    if rest:
        try:
            value = get_path(json.loads(value), rest)
        except (ValueError, KeyError, IndexError, TypeError):
            raise ConfigError(f"configuration key '{key}' not found for stack '{session.stack}'") from None
    if json_output:
        print_json({"value": value, "secret": top in resolved.secret_keys})
    else:
        click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@config.command(name="set")
@click.argument("key")
@click.argument("value", required=False)
@stack_option
@click.option("--secret", is_flag=True, help="Encrypt the value.")
@click.option("--plaintext", is_flag=True, help="Do not encrypt the value.")
@click.option("--path", is_flag=True, help="The key is a path into an object or a list.")
@common
def set_(
    call: Invocation, key: str, value: str | None, stack: str | None, secret: bool, plaintext: bool, path: bool
) -> None:
    """Set a value; without VALUE it is read from the standard input, where no other process can see it."""
    session = call.session(stack)
    top, rest = _split(call, key, path)
    if secret and plaintext:
        raise ConfigError("--secret and --plaintext exclude each other")
    declared = session.project.declarations.get(top)
    if declared and declared.secret and not plaintext:
        secret = True
    if value is None:
        value = _read_value(call, secret)
    stored: Value = _typed(value) if path and not secret else value
    if secret:
        session.ensure_salt()
        stored = {"secure": session.crypter().encrypt(value)}
    if rest:
        old = session.settings.config.get(top, Entry(None)).value
        stored = set_path(old, rest, stored)
    set_value(session.settings.path, call.project.name, top, stored)


@config.command()
@click.argument("key")
@stack_option
@click.option("--path", is_flag=True, help="The key is a path into an object or a list.")
@common
def rm(call: Invocation, key: str, stack: str | None, path: bool) -> None:
    """Remove a value."""
    session = call.session(stack)
    top, rest = _split(call, key, path)
    if top not in session.settings.config:
        return
    if rest:
        left = remove_path(session.settings.config[top].value, rest)
        set_value(session.settings.path, call.project.name, top, left)
    else:
        remove_value(session.settings.path, call.project.name, top)


def _split(call: Invocation, key: str, path: bool) -> tuple[str, Path]:
    """(the configuration's key with its namespace, the way from there); a colon further on is a part of a key."""
    steps = parse_path(key) if path else (key,)
    return full_key(call.project.name, str(steps[0])), steps[1:]


def _read_value(call: Invocation, secret: bool) -> str:
    if call.interactive:
        return str(click.prompt("value", hide_input=secret))
    if sys.stdin.isatty():
        raise ConfigError("value must be given as an argument or on the standard input")
    return sys.stdin.read().removesuffix("\n")


def _typed(text: str) -> Value:
    """What a text inside an object is: the CLI takes numbers and booleans there for what they look like."""
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal() and (text == "0" or not text.startswith("0")):
        return int(text)
    return text


def _as_json(session: StackSession, resolved: Configuration, key: str, show: bool) -> Json:
    secret = key in resolved.secret_keys
    if secret and not show:
        return {"secret": True}
    entry: Json = {"value": resolved.values[key], "secret": secret}
    declared = session.project.declarations.get(key)
    stored = session.settings.config.get(key, Entry(declared.default if declared else None)).value
    if isinstance(stored, list) or (isinstance(stored, dict) and list(stored) != ["secure"]):
        entry["objectValue"] = json.loads(resolved.values[key])
    return entry
