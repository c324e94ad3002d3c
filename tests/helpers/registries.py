"""Two real registries, each in a process of its own. They differ in what registries differ in:

- Debian's docker-registry (distribution 2.8): no referrers API, each blob in two requests, all on the disk before it
  answers.
- CUE's, a Go library (`testbed/modules/oci-registry`, built in seconds): referrers, a small blob in one request, as the
  distribution specification 1.1 has them; in memory.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from testbed import build

PROGRAM = shutil.which("docker-registry") or shutil.which("registry")
WITH_REFERRERS = build.PROGRAMS["oci-registry"]
DEADLINE_S = 20.0


@dataclass
class RegistryProcess:
    """A registry and where it listens."""

    host: str
    process: "subprocess.Popen[str]"
    storage: Path
    drain: "subprocess.Popen[bytes]"


def start_registry(folder: Path, extra: Mapping[str, object] | None = None) -> RegistryProcess:
    """docker-registry, its data in a folder, with settings beside the usual ones."""
    if PROGRAM is None:
        pytest.skip("no registry program: install Debian's docker-registry")
    storage = folder / "storage"
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
        **(extra or {}),
    }
    file = folder / "registry.yml"
    file.write_text(yaml.safe_dump(config))
    return _start([PROGRAM, "serve", str(file)], storage)


def start_referrers_registry(folder: Path) -> RegistryProcess:
    """CUE's, empty; its data is in no folder."""
    return _start([str(_built())], folder)


def stop(registry: RegistryProcess) -> None:
    """Ends it at once."""
    registry.process.kill()
    registry.process.wait(DEADLINE_S)
    registry.drain.wait(DEADLINE_S)
    assert registry.process.stderr is not None
    registry.process.stderr.close()


def _built() -> Path:
    there = build.path(WITH_REFERRERS.name)
    if there is not None:
        return there
    if shutil.which("go") is None:
        pytest.skip("no registry with referrers: it is built from a Go module, and there is no `go`")
    try:
        return build.build(WITH_REFERRERS)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no registry with referrers: its Go module cannot be built here ({error})")


def _start(command: list[str], storage: Path) -> RegistryProcess:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
        if found:
            # The log must be drained, or a full pipe stops the registry. Not here: this process may be measured.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            return RegistryProcess(found[1], process, storage, drain)
    process.wait(DEADLINE_S)
    raise AssertionError("the registry did not start:\n" + "".join(lines))
