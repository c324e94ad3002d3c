"""From the files to what a program gets: every key with a text, secrets decrypted, the project's defaults filled in."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Protocol

from embedded_engine.config.project import Declaration, Project
from embedded_engine.config.settings import StackSettings, is_secure
from embedded_engine.errors import ConfigError, SecretsError
from embedded_engine.model import Json, Value
from embedded_engine.values import REDACTED
from embedded_engine.wirejson import dumps_sorted


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a program and the default providers get.

    `values`: text by full key (`namespace:name`); lists and objects are JSON. `secret_keys`: those of which the text
    holds something that was encrypted, or that the project declares as secret.
    """

    values: Mapping[str, str]
    secret_keys: frozenset[str]


class Decrypter(Protocol):
    """What makes plain text of a ciphertext, or something that stands for it."""

    def decrypt(self, ciphertext: str) -> str: ...


class Blind:
    """Shows no secret, and needs no passphrase for that."""

    def decrypt(self, _: str) -> str:
        return REDACTED


def resolve(
    project: Project, stack: str, settings: StackSettings, crypter: Callable[[], Decrypter], check: bool = True
) -> Configuration:
    """Merges the project's defaults under the stack's settings and decrypts. Raises `ConfigError` with all problems.

    Of the two, a value of the stack wins whole: objects are not merged. `check`: whether what the project declares
    must hold; for looking at a configuration that is not complete yet it need not.
    """
    values: dict[str, str] = {}
    secret_keys: set[str] = set()
    problems: list[str] = []
    for key, entry in settings.config.items():
        declared = project.declarations.get(key)
        secure = is_secure(entry.value) or _holds_secure(entry.value)
        try:
            plain = _opened(entry.value, crypter)
        except SecretsError as error:
            raise SecretsError(f"configuration key '{key}' of stack '{stack}': {error}") from None
        if declared and declared.type:
            problem = _mismatch(declared.type, declared.items, plain)
            if problem:
                problems.append(f"Stack '{stack}' with configuration key '{key}' {problem}")
            if declared.secret and not secure:
                problems.append(f"Stack '{stack}' with configuration key '{key}' must be encrypted as it's secret")
        values[key] = as_text(plain, entry.text)
        if secure:
            secret_keys.add(key)
    missing = _fill_defaults(project.declarations, values, secret_keys)
    if missing:
        names = ", ".join(f"'{key}'" for key in missing)
        problems.append(f"Stack '{stack}' is missing configuration value{'s' if len(missing) > 1 else ''} {names}")
    if problems and check:
        raise ConfigError("\n".join(problems))
    return Configuration(values, frozenset(secret_keys))


def _fill_defaults(declarations: Mapping[str, Declaration], values: dict[str, str], secret_keys: set[str]) -> list[str]:
    """Puts the project's values where the stack has none; returns the keys that have a value in neither."""
    absent = {key: declared for key, declared in declarations.items() if key not in values}
    for key, declared in absent.items():
        if declared.default is not None:
            values[key] = as_text(declared.default, declared.text)
            if declared.secret:
                secret_keys.add(key)
    return [key for key, declared in absent.items() if declared.required]


def as_text(value: Value, text: str = "") -> str:
    """What a program sees of a value: a scalar's own text, JSON of anything else."""
    if isinstance(value, dict | list):
        return dumps_sorted(value)
    if isinstance(value, str):
        return value
    return text if text or value is None else dumps_sorted(value)


def parsed(declared: Declaration | None, text: str) -> Value:
    """The JSON value that a text stands for; the text itself where it is none."""
    if declared is not None and declared.type == "string":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _opened(value: Value, crypter: Callable[[], Decrypter]) -> Value:
    if is_secure(value):
        return crypter().decrypt(str(value["secure"]))
    if isinstance(value, dict):
        return {key: _opened(entry, crypter) for key, entry in value.items()}
    return [_opened(entry, crypter) for entry in value] if isinstance(value, list) else value


def _holds_secure(value: Value) -> bool:
    if isinstance(value, dict):
        return is_secure(value) or any(_holds_secure(entry) for entry in value.values())
    return isinstance(value, list) and any(_holds_secure(entry) for entry in value)


def _mismatch(kind: str, items: Json | None, value: Value) -> str:
    """Why the value is not of the type; empty where it is. A text counts as what it can be read as."""
    read = parsed(None, value) if isinstance(value, str) and kind != "string" else value
    fits = {
        "string": isinstance(read, str | int | float),
        "integer": isinstance(read, int) and not isinstance(read, bool),
        "number": isinstance(read, int | float) and not isinstance(read, bool),
        "boolean": isinstance(read, bool),
        "array": isinstance(read, list),
        "object": isinstance(read, dict),
    }[kind]
    if not fits:
        return f"must be of type '{kind}'"
    if kind == "array" and items and isinstance(items.get("type"), str):
        for index, entry in enumerate(read):
            problem = _mismatch(items["type"], items.get("items"), entry)
            if problem:
                return f"[{index}] {problem}"
    return ""
