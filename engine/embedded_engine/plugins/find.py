"""Where a provider plugin is: under `plugins.providers` of the project, on PATH, or in Pulumi's plugin folder."""

import dataclasses
import os
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from embedded_engine.errors import EngineError
from embedded_engine.model import Json

MANIFEST = "PulumiPlugin.yaml"
# What the CLI's Python host takes where the manifest names none.
_DEFAULT_VENV = {"pip": "venv", "uv": ".venv"}
# Used where no other is found.
_BUILT_IN = {"kubernetes": "embedded_engine.kubernetes"}


class PluginNotFoundError(EngineError):
    """No plugin of that name can be started. The text says where was looked, or what is missing."""


@dataclasses.dataclass(frozen=True)
class ProjectPlugin:
    """An entry of `plugins.providers` in Pulumi.yaml; `path` is absolute, a folder or a file."""

    name: str
    path: Path
    version: str = ""


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a plugin is started; the engine's address is added as the last argument. `folder` is what is told to it."""

    command: tuple[str, ...]
    folder: Path
    working_directory: Path | None = None


@dataclasses.dataclass(frozen=True)
class Finder:
    """Finds plugins for one project.

    `declared` are the project's own, `environment` has PATH and PULUMI_HOME.
    """

    declared: Sequence[ProjectPlugin] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(os.environ))

    def find(self, name: str, version: str = "") -> Launch:
        """Raises `PluginNotFoundError`."""
        for plugin in self.declared:
            if plugin.name == name and (not version or not plugin.version or plugin.version == version):
                return launch(name, plugin.path)
        binary = shutil.which(f"pulumi-resource-{name}", path=self.environment.get("PATH"))
        if binary:
            return Launch((binary,), Path(binary).parent)
        folder = self._installed(name, version)
        if folder:
            return launch(name, folder)
        if name in _BUILT_IN:
            return Launch((sys.executable, "-m", _BUILT_IN[name]), Path(__file__).parent)
        wanted = f"{name} {version}" if version else name
        raise PluginNotFoundError(
            f"no provider plugin {wanted}: it is not under `plugins.providers` in Pulumi.yaml, no "
            f"`pulumi-resource-{name}` is on PATH, and {self._home()} has no `resource-{name}-v{version or '…'}`"
        )

    def _home(self) -> Path:
        home = self.environment.get("PULUMI_HOME")
        return (Path(home) if home else Path.home() / ".pulumi") / "plugins"

    def _installed(self, name: str, version: str) -> Path | None:
        """The exact version if one is asked for, else the newest."""
        prefix = f"resource-{name}-v"
        folder = self._home()
        if not folder.is_dir():
            return None
        found = [p for p in folder.iterdir() if p.is_dir() and p.name.startswith(prefix)]
        if version:
            return next((p for p in found if p.name == prefix + version), None)
        return max(found, key=lambda p: _order(p.name.removeprefix(prefix)), default=None)


def launch(name: str, path: Path) -> Launch:
    """How the plugin at `path` (its folder, or the executable) is started. Raises `PluginNotFoundError`."""
    if path.is_file():
        return Launch((str(path),), path.parent)
    if not path.is_dir():
        raise PluginNotFoundError(f"plugin {name}: {path} does not exist (`plugins.providers` in Pulumi.yaml names it)")
    binary = path / f"pulumi-resource-{name}"
    if binary.is_file() and os.access(binary, os.X_OK):
        return Launch((str(binary),), path)
    if not (path / MANIFEST).is_file():
        raise PluginNotFoundError(f"plugin {name}: {path} has neither {binary.name} nor {MANIFEST}")
    return _python(name, path)


def _python(name: str, folder: Path) -> Launch:
    runtime, options = _manifest(name, folder)
    if runtime != "python":
        raise PluginNotFoundError(
            f"plugin {name}: {folder / MANIFEST} names the runtime {runtime!r}; "
            "embedded-engine starts Python plugins and executables"
        )
    interpreter = _interpreter(name, folder, options)
    if (folder / "__main__.py").is_file():
        return Launch((interpreter, "-u", str(folder)), folder, folder)
    if (folder / "pyproject.toml").is_file():
        return Launch((interpreter, "-u", "-m", "pulumi.run.plugin", _distribution(name, folder)), folder, folder)
    raise PluginNotFoundError(f"plugin {name}: {folder} has neither __main__.py nor pyproject.toml")


def _manifest(name: str, folder: Path) -> tuple[str, Json]:
    try:
        content = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8")) or {}
        runtime = content.get("runtime")
    except (yaml.YAMLError, AttributeError, OSError, ValueError, RecursionError) as error:
        raise PluginNotFoundError(f"plugin {name}: {folder / MANIFEST} cannot be read: {error}") from error
    if isinstance(runtime, dict):
        return str(runtime.get("name")), dict(runtime.get("options") or {})
    return str(runtime), {}


def _interpreter(name: str, folder: Path, options: Json) -> str:
    """The Python of the virtual environment that the manifest names; where it names none, of `venv`, else ours."""
    toolchain = str(options.get("toolchain") or "pip")
    if toolchain not in _DEFAULT_VENV:
        raise PluginNotFoundError(
            f"plugin {name}: the toolchain {toolchain!r} of {folder / MANIFEST} is not supported; use pip or uv"
        )
    named = options.get("virtualenv")
    environment = folder / str(named or _DEFAULT_VENV[toolchain])
    python = environment / "bin" / "python"
    if python.exists():
        return str(python)
    if named:
        raise PluginNotFoundError(
            f"plugin {name}: {folder / MANIFEST} names the virtual environment {environment}, which does not exist; "
            f"create it and install the plugin's requirements there (python3 -m venv {environment})"
        )
    return sys.executable


def _distribution(name: str, folder: Path) -> str:
    try:
        return str(tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])
    except (KeyError, tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise PluginNotFoundError(f"plugin {name}: {folder / 'pyproject.toml'} has no project name: {error}") from error


def _order(version: str) -> tuple[list[int], bool, str]:
    """Sorts versions; a pre-release stands before its release."""
    release, _, pre = version.partition("-")
    numbers = [int(part) if part.isdigit() else 0 for part in release.split(".")]
    return numbers, not pre, pre
