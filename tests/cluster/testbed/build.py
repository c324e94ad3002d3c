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
FAKE_NODES = (Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),)
"""Nodes whose pods only say that they run: for scale, and where no container runtime is."""
NODE = (_kubernetes("kubelet"), _kubernetes("kube-proxy"))


def _containerd(name: str) -> Program:
    return Program(name, "containerd", f"github.com/containerd/containerd/v2/cmd/{name}")


NEWER_RUNTIME = tuple(_containerd(name) for name in ("containerd", "containerd-shim-runc-v2", "ctr"))
"""A containerd that mounts images as volumes, which Debian's does not."""
CERT_MANAGER = tuple(Program(name, "cert-manager", f"./{name}") for name in ("controller", "acmesolver"))
"""cert-manager's controllers, and what its pods answer challenges with."""


def _pebble(name: str) -> Program:
    return Program(name, "pebble", f"github.com/letsencrypt/pebble/v2/cmd/{name}")


ACME = tuple(_pebble(name) for name in ("pebble", "pebble-challtestsrv"))
"""A certificate authority for tests, by Let's Encrypt, and the name server that it asks."""
REGISTRY = (Program("oci-registry", "oci-registry", "."),)
"""A registry with the referrers API, which Debian's has not."""
PROGRAMS = {
    program.name: program
    for program in (*API, *CONTROL, *FAKE_NODES, *NODE, *NEWER_RUNTIME, *CERT_MANAGER, *ACME, *REGISTRY)
}


def folder() -> Path:
    """Where all programs are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "aks-inference" / "test-bed"


def place(program: Program) -> Path:
    """Where a program is, or will be: another place as soon as its module changes."""
    digest = hashlib.sha256()
    for file in sorted((MODULES / program.module).rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return folder() / f"{program.module}-{digest.hexdigest()[:16]}" / program.name


def path(name: str) -> Path | None:
    """A program that is built."""
    built = place(PROGRAMS[name])
    return built if built.is_file() else None


def missing(programs: tuple[Program, ...]) -> list[str]:
    """Those that are not built."""
    return [program.name for program in programs if path(program.name) is None]


def build(program: Program) -> Path:
    """Builds one. Raises CalledProcessError with Go's own words on stderr."""
    target = place(program)
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
    # What stands beside the source, not in the program: how kwok's nodes and pods live, cert-manager's definitions.
    if program.name == "kwok":
        kwok_stages().write_text("\n---\n".join(path.read_text() for path in _stage_sources()))
    elif program.name == "controller":
        sources = sorted(
            (_source("cert-manager", "github.com/cert-manager/cert-manager") / "deploy/crds").glob("*.yaml")
        )
        cert_manager_definitions().write_text("\n---\n".join(path.read_text() for path in sources))
    part.rename(target)
    return target


def kwok_stages() -> Path:
    """kwok's configuration: how fast its nodes and pods become ready."""
    return place(PROGRAMS["kwok"]).with_name("stages.yaml")


def cert_manager_definitions() -> Path:
    """The definitions of cert-manager's resources."""
    return place(PROGRAMS["controller"]).with_name("definitions.yaml")


def _source(module: str, path: str) -> Path:
    """Where a module's own files are."""
    command = ["go", "list", "-m", "-f", "{{.Dir}}", path]
    found = subprocess.run(command, cwd=MODULES / module, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def _stage_sources() -> list[Path]:
    folder = _source("kwok", "sigs.k8s.io/kwok") / "kustomize" / "stage"
    named = ("node/fast/node-*", "node/heartbeat-with-lease/node-*", "pod/fast/pod-*")
    return sorted(path for pattern in named for path in folder.glob(f"{pattern}.yaml"))


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
