"""YAML as the pulumi CLI reads it: only `true` and `false` are booleans, and a date is a string."""

import re
from pathlib import Path

import yaml

from embedded_engine.errors import ConfigError
from embedded_engine.model import Value


class _Loader(yaml.SafeLoader):
    """The safe loader with the implicit types of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class has it as a plain class attribute


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _number(loader: yaml.SafeLoader, node: yaml.Node) -> float:
    return float(str(node.value))


_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def load_text(text: str, name: str) -> Value:
    """The document's content with YAML 1.2 types. Raises `ConfigError` with the place that does not parse."""
    return _load(text, name, _Loader)


def load_raw(text: str, name: str) -> Value:
    """The document's content with every scalar as the text that stands there. Raises `ConfigError`."""
    return _load(text, name, yaml.BaseLoader)


def read_file(path: Path) -> str:
    """The file's text; raises `ConfigError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


def _load(text: str, name: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Value:
    try:
        return yaml.load(text, loader)  # noqa: S506 - both are safe loaders
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from None
