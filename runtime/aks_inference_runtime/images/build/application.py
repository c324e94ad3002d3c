"""The application's own small layer on an environment's image: a changed entry script leaves the environment alone."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aks_inference_runtime.api.content import combined_digest, file_digest
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.build.assemble import Image, NewLayer, put_together
from aks_inference_runtime.images.build.base import BaseImage
from aks_inference_runtime.images.build.tarball import Entry, kept
from aks_inference_runtime.images.context import ContextLimits, context_files
from aks_inference_runtime.images.environment.containerfile import APP_ROOT

APPLICATION_LABEL = "dev.aks-inference.application"


@dataclass(frozen=True)
class Application:
    """An entry script and the folder that it comes from."""

    entry_script: str
    """Relative to the folder, with forward slashes; without a folder the path of the script."""
    source_directory: Path | None = None
    limits: ContextLimits = field(default_factory=ContextLimits)


@dataclass(frozen=True)
class Packed:
    """The files by their names under the application's root, and what identifies them."""

    files: Mapping[str, Path]
    digest: str
    entry: str
    """The entry script under the root, as AZUREML_ENTRY_SCRIPT says it."""
    folder: str | None

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
        files, entry, name = {path.name: path}, path.name, None
    else:
        name = folder.resolve().name
        inside = context_files(folder, application.limits)
        if script not in inside:
            there = (folder / script).is_file()
            rule = "is ignored by .amlignore or .gitignore" if there else f"is not in {folder}"
            raise InvalidInput(f"entryScript: {script!r} {rule}; name a file relative to sourceDirectory")
        files = {f"{name}/{relative}": path for relative, path in inside.items()}
        entry = f"{name}/{script}"
    # Executable or not is part of the content: the layer carries it.
    digests = {f"{'x' if _executable(path) else '-'} {name}": file_digest(path) for name, path in files.items()}
    return Packed(files, combined_digest(digests), entry, name)


async def application_image(environment: BaseImage, packed: Packed, cache: Path) -> Image:
    """The image of a service: the environment's with the application's layer."""
    root = APP_ROOT.lstrip("/")

    def entries() -> list[Entry]:
        return [Entry(f"{root}/{name}", path, _executable(path)) for name, path in packed.files.items()]

    layer = await asyncio.to_thread(kept, cache / "layers", f"application {packed.digest}", lambda _stack: entries())
    variables = {"AZUREML_ENTRY_SCRIPT": packed.entry}
    if packed.folder is not None:
        variables["AZUREML_SOURCE_DIRECTORY"] = packed.folder
    changes = {
        "Env": variables,
        "Cmd": ["azmlinfsrv", "--entry_script", f"{APP_ROOT}/{packed.entry}"],
        "Labels": {APPLICATION_LABEL: packed.digest},
    }
    return put_together(environment, (NewLayer(layer, "application"),), changes, {APPLICATION_LABEL: packed.digest})


def _executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)
