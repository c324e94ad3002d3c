"""Images for the node, without a registry: a base with Python from Debian's packages, ours on top."""

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed import build

RELEASE = "bookworm"
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


def packages(layer: Path, folders: Sequence[Path], scripts: Mapping[str, str]) -> Path:
    """A layer with packages of Python (folders as in site-packages) and scripts in /usr/local/bin."""
    with tarfile.open(layer, "w") as tar:
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if path.name != "__pycache__" and path.suffix != ".pth":
                    tar.add(path, f"{_PYTHON}/{path.name}", filter=_plain)
        for name, text in scripts.items():
            path = layer.with_name(f"{layer.stem}-{name}")
            path.write_text(text)
            path.chmod(0o755)
            tar.add(path, f"usr/local/bin/{name}", filter=_plain)
    return layer


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
    import io

    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
