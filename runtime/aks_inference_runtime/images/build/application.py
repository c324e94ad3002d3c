"""The application's own small layer on an environment's image: a changed entry script leaves the environment alone."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.content import combined_digest, file_digest
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import why_absent
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits
from aks_inference_runtime.images.build.assemble import Image, NewLayer, put_together
from aks_inference_runtime.images.build.base import BaseImage
from aks_inference_runtime.images.build.tarball import Entry, Layer, kept
from aks_inference_runtime.images.context import context_files
from aks_inference_runtime.images.environment.containerfile import APP_ROOT
from aks_inference_runtime.images.registry.manifest import sha256

APPLICATION_LABEL = "dev.aks-inference.application"
ROOT_FOLDER = "source"
"""Of a source directory without a name, which is the root of the file system."""


@dataclass(frozen=True)
class Application:
    """An entry script and the folder that it comes from."""

    entry_script: str
    """Relative to the folder, with forward slashes; without a folder the path of the script."""
    source_directory: Path | None = None
    limits: ContextLimits = AZURE_ML


@dataclass(frozen=True)
class PackedFile:
    """A file as it was looked at: what is packed must be this."""

    path: Path
    digest: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Packed:
    """The files by their names under a root, and what the image says of them."""

    files: Mapping[str, PackedFile]
    variables: Mapping[str, str]
    command: Sequence[str]
    root: str = APP_ROOT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def content(self) -> str:
        """`sha256:<hex>` over the files: of the layer."""
        # Executable or not is part of the content: the layer carries it.
        return combined_digest({f"{_mode(file)} {name}": file.digest for name, file in self.files.items()})

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over files, variables and command: of the image. Two scripts of one folder are two images."""
        says = json.dumps([self.root, sorted(self.variables.items()), list(self.command)])
        return sha256(f"{self.content}\0{says}".encode())

    @property
    def tag(self) -> str:
        """Part of the image's tag."""
        return self.digest.partition(":")[2][:16]


def collect(application: Application) -> Packed:
    """Which files go into the image. Raises InvalidInput with all that is wrong."""
    script, folder = application.entry_script, application.source_directory
    if folder is None:
        path = Path(script)
        if not path.is_file():
            raise InvalidInput(f"entryScript: {script!r} is not a file; give the path of the entry script")
        return pack({path.name: path}, *_served(path.name, None))
    # Not resolved: what a link is called is what the scoring server is told.
    name = Path(os.path.abspath(folder)).name or ROOT_FOLDER  # noqa: PTH100
    inside = context_files(folder, application.limits)
    if script not in inside:
        raise InvalidInput(
            f"entryScript: {script!r} {why_absent(folder, script)}; name a file relative to sourceDirectory"
        )
    return pack({f"{name}/{relative}": path for relative, path in inside.items()}, *_served(f"{name}/{script}", name))


def pack(
    files: Mapping[str, Path], variables: Mapping[str, str], command: Sequence[str], root: str = APP_ROOT
) -> Packed:
    """Files by their names under a root, with what identifies them. Reads them."""
    return Packed({name: _look(path) for name, path in files.items()}, variables, command, root)


def _served(entry: str, folder: str | None) -> tuple[dict[str, str], list[str]]:
    """Variables and command of a scoring server. `entry`: the script under the root."""
    variables = {"AZUREML_ENTRY_SCRIPT": entry}
    if folder is not None:
        variables["AZUREML_SOURCE_DIRECTORY"] = folder
    return variables, ["azmlinfsrv", "--entry_script", f"{APP_ROOT}/{entry}"]


def application_layer(packed: Packed, cache: Path) -> Layer:
    """The application's layer, whatever it is put on; kept between builds."""
    root = packed.root.lstrip("/")

    def entries() -> list[Entry]:
        return [
            Entry(f"{root}/{name}", file.path, file.executable, digest=file.digest)
            for name, file in packed.files.items()
        ]

    key = f"application {packed.content}" if packed.root == APP_ROOT else f"application {root} {packed.content}"
    return kept(cache / "layers", key, lambda _stack: entries())


def application_image(environment: BaseImage, packed: Packed, layer: Layer) -> Image:
    """The image of a service: the environment's with the application's layer. Pure."""
    changes = {
        "Env": packed.variables,
        "Cmd": list(packed.command),
        "Labels": {APPLICATION_LABEL: packed.digest},
    }
    return put_together(environment, (NewLayer(layer, "application"),), changes, {APPLICATION_LABEL: packed.digest})


def _look(path: Path) -> PackedFile:
    stat = path.stat()
    return PackedFile(path, file_digest(path), stat.st_size, bool(stat.st_mode & 0o100))


def _mode(file: PackedFile) -> str:
    return "x" if file.executable else "-"
