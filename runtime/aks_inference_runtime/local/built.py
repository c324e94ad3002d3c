"""Python environments of scoring servers that are there already. Light: a program that asks for one imports it."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.scoring.requirements import canonical, environment_hash


@dataclass(frozen=True)
class BuiltEnvironment:
    """A folder with Python and the packages."""

    hash: str
    folder: Path
    server_version: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def usable(self) -> bool:
        """Whether its interpreter is there: it links to one of the machine, which an upgrade may remove."""
        return os.access(self.python, os.X_OK)


def cache_root() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/aks-inference/environments`: kept when a cluster goes."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "aks-inference" / "environments"


def hash_of(packages: Sequence[str]) -> str:
    """The environment's identity on this machine. Raises InvalidInput."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = f"{platform.system().lower()}-{platform.machine()}"
    return environment_hash(canonical(packages), python, machine)


def is_built(packages: Sequence[str]) -> bool:
    """Whether the environment of these requirements is in this user's cache: nothing is then installed."""
    try:
        key = hash_of(packages)
    except InvalidInput:
        return False
    return read_built(key, cache_root() / key) is not None


def read_built(key: str, folder: Path) -> BuiltEnvironment | None:
    """The environment in a folder, if it is whole."""
    try:
        record = json.loads((folder / "environment.json").read_text())
        found = BuiltEnvironment(key, folder, str(record["serverVersion"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.usable else None
