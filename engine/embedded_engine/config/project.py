"""The project: `Pulumi.yaml`."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from embedded_engine.config.yaml12 import load_raw, load_text, read_file
from embedded_engine.errors import ConfigError
from embedded_engine.model import Json, Value

FILE_NAMES = ("Pulumi.yaml", "Pulumi.yml")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
_TYPES = ("string", "integer", "number", "boolean", "array", "object")


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What the project says of one configuration key.

    `type` is empty for a key that is only given a value. `default` is the default or the value; None: there is none.
    `text` is a scalar default as it stands in the file.
    """

    type: str = ""
    default: Value = None
    text: str = ""
    secret: bool = False
    items: Json | None = None
    required: bool = False


@dataclasses.dataclass(frozen=True)
class Project:
    """A project as read. `main` is the program's folder or file; `plugins` is the section of that name.

    `refresh_always`: every preview, update and destroy begins with a refresh.
    """

    name: str
    root: Path
    file: Path
    main: Path
    runtime: str
    runtime_options: Json
    plugins: Json
    declarations: Mapping[str, Declaration]
    backend_url: str
    settings_folder: Path
    refresh_always: bool
    raw: Json


def find_project_file(start: Path) -> Path:
    """The `Pulumi.yaml` of the folder or of the nearest one above it. Raises `ConfigError` where there is none."""
    for folder in (start, *start.parents):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise ConfigError(f"no Pulumi.yaml project file found (searching upwards from {start})")


def load_project(start: Path) -> Project:
    """Reads the project that the folder belongs to. Raises `ConfigError` with all that is wrong."""
    return parse_project(find_project_file(start.resolve()))


def parse_project(file: Path) -> Project:
    text = read_file(file)
    content, raw_content = load_text(text, str(file)), load_raw(text, str(file))
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a mapping with `name` and `runtime`")
    problems: list[str] = []
    name = content.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append(f"`name` is {name!r}: 1 to 100 letters, digits, `_`, `.` and `-` are needed")
    runtime = content.get("runtime")
    options: Json = {}
    if isinstance(runtime, dict):
        given = runtime.get("options") or {}
        if not isinstance(given, dict):
            problems.append("`runtime.options` must be a mapping")
        runtime, options = runtime.get("name"), given
    if runtime != "python":
        problems.append(f"`runtime` is {runtime!r}: this engine runs `python` programs only")
    sections: dict[str, Json] = {}
    for section in ("plugins", "backend", "options"):
        value = content.get(section) or {}
        if not isinstance(value, dict):
            problems.append(f"`{section}` must be a mapping")
            value = {}
        sections[section] = value
    unsupported = [f"plugins.{key}" for key in ("analyzers", "languages") if sections["plugins"].get(key)]
    unsupported += [f"options.{key}" for key in sections["options"] if key != "refresh"]
    problems += [f"`{key}` is not supported by this engine" for key in unsupported]
    if not isinstance(content.get("main", ""), str):
        problems.append("`main` must be a path")
    keys: Value = content.get("config") or {}
    # In old projects `config` names the folder of the stacks' settings.
    settings_folder = str(content.get("stackConfigDir") or (keys if isinstance(keys, str) else ""))
    declarations: dict[str, Declaration] = {}
    if isinstance(keys, dict):
        for key, value in keys.items():
            raw = raw_content["config"].get(str(key), "")
            declarations[_full_key(str(name), str(key))] = _declaration(str(key), value, raw, problems)
    elif not isinstance(keys, str):
        problems.append("`config` must be a mapping")
    if problems:
        raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))
    return Project(
        name=str(name),
        root=file.parent,
        file=file,
        main=(file.parent / content.get("main", "")).resolve(),
        runtime=str(runtime),
        runtime_options=options,
        plugins=sections["plugins"],
        declarations=declarations,
        backend_url=str(sections["backend"].get("url") or ""),
        settings_folder=file.parent / settings_folder,
        refresh_always=sections["options"].get("refresh") == "always",
        raw=content,
    )


def _full_key(project: str, key: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _declaration(key: str, value: Value, raw: Value, problems: list[str]) -> Declaration:
    if not isinstance(value, dict):
        return Declaration(default=value, text=raw if isinstance(raw, str) else "")
    kind = value.get("type", "")
    if kind and kind not in _TYPES:
        problems.append(f"`config.{key}.type` is {kind!r}: must be one of {', '.join(_TYPES)}")
    if "default" in value and "value" in value:
        problems.append(f"`config.{key}`: `default` and `value` exclude each other")
    given = "value" if "value" in value else "default"
    raw_default = raw.get(given, "") if isinstance(raw, dict) else ""
    return Declaration(
        type=str(kind),
        default=value.get(given),
        text=raw_default if isinstance(raw_default, str) else "",
        secret=value.get("secret") is True,
        items=value.get("items") if isinstance(value.get("items"), dict) else None,
        required=given not in value,
    )
