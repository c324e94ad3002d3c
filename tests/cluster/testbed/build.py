"""Builds the programs of the test bed from Go modules into a cache outside of the repository.

`python -m testbed.build [PROGRAM…]` (with `tests/cluster` on PYTHONPATH) builds what is missing (minutes).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.34.4"
MODULES = Path(__file__).with_name("modules")
_VERSION_FLAG = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")


@dataclass(frozen=True)
class Program:
    """A program, the module that pins it, and its main package."""

    name: str
    module: str
    package: str


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")


API = (Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"), _kubernetes("kube-apiserver"))
"""Enough for definitions, server-side apply and RBAC."""
CONTROL = (_kubernetes("kube-controller-manager"), _kubernetes("kube-scheduler"))
NODE = (_kubernetes("kubelet"), _kubernetes("kube-proxy"))
PROGRAMS = {program.name: program for program in (*API, *CONTROL, *NODE)}


def folder() -> Path:
    """Where the programs are; another as soon as a pinned version changes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256()
    for file in sorted(MODULES.glob("*/go.*")):
        digest.update(file.read_bytes())
    return cache / "aks-inference" / "test-bed" / digest.hexdigest()[:16] / "bin"


def path(name: str) -> Path | None:
    """A program that is built."""
    built = folder() / name
    return built if built.is_file() else None


def missing(programs: tuple[Program, ...]) -> list[str]:
    """Those that are not built."""
    return [program.name for program in programs if path(program.name) is None]


def build(program: Program) -> Path:
    """Builds one. Raises CalledProcessError with Go's own words on stderr."""
    target = folder() / program.name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    flags = ["-s", "-w"]
    for name, value in (("gitVersion", f"v{KUBERNETES_VERSION}"), ("gitMajor", _MAJOR), ("gitMinor", _MINOR)):
        flags += ["-X", f"{_VERSION_FLAG}.{name}={value}"]
    subprocess.run(
        ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", " ".join(flags), "-o", str(part), program.package],
        cwd=MODULES / program.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"},
        check=True,
    )
    part.rename(target)
    return target


def main(names: list[str]) -> int:
    """Exit status 1 without Go, or for an unknown name."""
    unknown = set(names) - set(PROGRAMS)
    if unknown or shutil.which("go") is None:
        problem = f"unknown: {', '.join(sorted(unknown))}" if unknown else "the `go` command is not installed"
        print(f"{problem}; programs: {', '.join(PROGRAMS)}", file=sys.stderr)
        return 1
    for name in names or PROGRAMS:
        if path(name) is None:
            begun = time.monotonic()
            build(PROGRAMS[name])
            print(f"{name}: built in {time.monotonic() - begun:.0f} s", flush=True)
    print(folder())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
