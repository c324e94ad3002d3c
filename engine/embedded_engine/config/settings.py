"""The settings of one stack: `Pulumi.<stack>.yaml`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from embedded_engine.config.yaml12 import load_raw, load_text, read_file
from embedded_engine.errors import ConfigError
from embedded_engine.model import Value

_KNOWN = ("config", "encryptionsalt", "secretsprovider", "encryptedkey", "environment")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One value of the configuration: as YAML reads it, and a scalar's text as it stands in the file."""

    value: Value
    text: str = ""


@dataclasses.dataclass(frozen=True)
class StackSettings:
    """The file's content. `config` is by full key (`namespace:name`). `source` is the file's text; empty: no file."""

    path: Path
    salt: str
    config: Mapping[str, Entry]
    source: str


def settings_path(folder: Path, stack: str) -> Path:
    return folder / f"Pulumi.{stack}.yaml"


def load_settings(path: Path, project: str) -> StackSettings:
    """Reads the file; one that does not exist is empty. Raises `ConfigError` with all that is wrong."""
    if not path.exists():
        return StackSettings(path, "", {}, "")
    return parse_settings(path, read_file(path), project)


def parse_settings(path: Path, source: str, project: str) -> StackSettings:
    content, raw = load_text(source, str(path)) or {}, load_raw(source, str(path)) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping")
    problems = [
        f"{path}: `{key}` is not supported: known are {', '.join(_KNOWN)}" for key in content if key not in _KNOWN
    ]
    if content.get("secretsprovider") not in (None, "", "passphrase"):
        problems.append(f"{path}: secrets provider `{content['secretsprovider']}` is not supported, only `passphrase`")
    if content.get("environment"):
        problems.append(f"{path}: `environment` (Pulumi ESC) is not supported")
    section = content.get("config") or {}
    if not isinstance(section, dict):
        problems.append(f"{path}: `config` must be a mapping")
        section = {}
    config: dict[str, Entry] = {}
    for key, value in section.items():
        full = full_key(project, str(key))
        if full in config:
            problems.append(f"{path}: configuration key `{full}` stands there twice")
        text = raw["config"].get(str(key), "")
        config[full] = Entry(value, text if isinstance(text, str) else "")
    if problems:
        raise ConfigError("\n".join(problems))
    return StackSettings(path, str(content.get("encryptionsalt") or ""), config, source)


def full_key(project: str, key: str) -> str:
    """`namespace:name`; without a namespace it is the project's. Raises `ConfigError` for a key that cannot be."""
    parts = key.split(":")
    if len(parts) == 3 and parts[1] == "config":
        # The old form `aws:config:region`.
        parts = [parts[0], parts[2]]
    if len(parts) > 2 or not all(parts):
        raise ConfigError(
            f"could not parse {key} as a configuration key (must be of the form `namespace:name` or `name`)"
        )
    return ":".join(parts) if len(parts) == 2 else f"{project}:{key}"


def is_secure(value: Value) -> bool:
    return isinstance(value, dict) and list(value) == ["secure"] and isinstance(value["secure"], str)
