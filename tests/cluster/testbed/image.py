"""Images for the node, without a registry: a base with Python from Debian's packages, ours on top."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed import build

RELEASE = "bookworm"
PAUSE = "docker.io/test-bed/pause:1"
APPLICATION = "docker.io/test-bed/application:1"
SCIENCE = "docker.io/test-bed/science"
_ROOT = Path(__file__).resolve().parents[3]
_SCRIPTS = {
    "python": '#!/bin/sh\nexec /usr/bin/python3 "$@"\n',
    "azmlinfsrv": "#!/usr/bin/python3\nimport sys\nfrom azureml_inference_server_http.amlserver import run\n"
    "sys.exit(run())\n",
}
_PYTHON = "usr/local/lib/python3.11/dist-packages"


def base() -> Path:
    """A layer with Debian's minimal system and Python 3.11, made once. Raises CalledProcessError."""
    layer = build.folder() / f"{RELEASE}-python.tar"
    if not layer.exists():
        tree = layer.with_suffix(".tree")
        if not tree.exists():
            include = "--include=python3,ca-certificates"
            subprocess.run(["debootstrap", "--variant=minbase", include, RELEASE, str(tree)], check=True)
        part = layer.with_suffix(".part")
        subprocess.run(["tar", "--numeric-owner", "-C", str(tree), "-cf", str(part), "."], check=True)
        part.rename(layer)
    return layer


def site() -> Path:
    """A folder with what the runtime and a scoring server need of Python's packages, installed once."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    # Pods never run Pulumi.
    wanted = [*(d for d in project["dependencies"] if not d.startswith("pulumi")), "azureml-inference-server-http"]
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    target = build.folder() / f"site-{digest}"
    if not target.exists():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(part), *wanted]
        subprocess.run(command, check=True)
        part.rename(target)
    return target


def application(folder: Path) -> Path:
    """An archive, in a folder of the test, with one image for routers, autoscaler, gates and scoring servers."""
    ours = folder / "ours"
    shutil.copytree(_ROOT / "runtime" / "aks_inference_runtime", ours / "aks_inference_runtime")
    theirs = site()
    below = theirs.with_suffix(".tar")
    if not below.exists():
        packages_layer(below, theirs, _SCRIPTS)
    above = packages_layer(folder / "ours.tar", ours, {})
    path = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}
    return archive(folder / "application.tar", {APPLICATION: ([base(), below, above], path)})


def science(folder: Path, *packages: str) -> tuple[str, Path]:
    """One image more, and its archive: the application's, with further packages."""
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]
    layer = build.folder() / f"science-{digest}.tar"
    if not layer.exists():
        with tempfile.TemporaryDirectory(dir=build.folder()) as made:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", made, *packages]
            subprocess.run(command, check=True)
            packages_layer(layer, Path(made), {})
    below, above = site().with_suffix(".tar"), folder / "ours.tar"
    path = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}
    name = f"{SCIENCE}:{digest}"
    return name, archive(folder / f"science-{digest}.tar", {name: ([base(), below, layer, above], path)})


def pause(folder: Path) -> Path:
    """An archive with the image that holds a pod's namespaces."""
    return archive(folder / "pause.tar", {PAUSE: ([base()], {"Entrypoint": ["/usr/bin/sleep", "infinity"]})})


def packages_layer(layer: Path, folder: Path, scripts: Mapping[str, str]) -> Path:
    """A layer with packages of Python (a folder as in site-packages) and scripts in /usr/local/bin."""
    part = layer.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for path in sorted(folder.iterdir()):
            if path.name not in ("__pycache__", "bin"):
                tar.add(path, f"{_PYTHON}/{path.name}", filter=_plain)
        for name, text in scripts.items():
            entry = _plain(tarfile.TarInfo(f"usr/local/bin/{name}"))
            assert entry is not None
            entry.mode, entry.size = 0o755, len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return part.rename(layer)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def archive(target: Path, names: Mapping[str, tuple[Sequence[Path], Mapping[str, Any]]]) -> Path:
    """Images by name, each of layers and a configuration, as `docker save` writes them."""
    with tarfile.open(target, "w") as tar:
        manifest, added = [], set()
        for name, (layers, configuration) in names.items():
            digests = {layer: _digest(layer) for layer in layers}
            content = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": dict(configuration),
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digests[layer]}" for layer in layers]},
                }
            ).encode()
            config = f"{hashlib.sha256(content).hexdigest()}.json"
            for layer, digest in digests.items():
                if digest not in added:
                    added.add(digest)
                    tar.add(layer, f"{digest}/layer.tar")
            _add(tar, config, content)
            paths = [f"{digests[layer]}/layer.tar" for layer in layers]
            manifest.append({"Config": config, "RepoTags": [name], "Layers": paths})
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return target


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
