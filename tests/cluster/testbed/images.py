"""A registry of this machine without a login, which containerd pulls from, with a base image to build on."""

import asyncio
import gzip
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    ensure_service,
    read_environment,
)
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    Descriptor,
    image_manifest,
    json_bytes,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource
from testbed import build, image
from testbed.processes import BedError, Running, free_ports, wait_until


class ImageRegistry:
    """containerd takes registries of the loopback address without TLS."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("docker-registry") or shutil.which("registry")
        if program is None:
            raise BedError("no registry program: install Debian's docker-registry")
        (port,) = free_ports(1)
        self.host = f"127.0.0.1:{port}"
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        (folder / "registry.yml").write_text(yaml.safe_dump(config))
        self._running = Running("registry", (program, "serve", folder / "registry.yml"), folder / "registry.log")
        wait_until("the registry listens", lambda: _listens(port), [self._running])

    def push_base(self) -> str:
        """Debian with Python; gives its name."""
        plain = image.base().read_bytes()
        layer = gzip.compress(plain, 1, mtime=0)
        reference = ImageReference.parse(f"{self.host}/base/debian:12")
        config = json_bytes(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]},
            }
        )

        async def push() -> None:
            described = Descriptor(OCI_LAYER_GZIP, sha256(layer), len(layer))
            config_blob = Descriptor(OCI_CONFIG, sha256(config), len(config))
            async with RegistryClient() as client:
                await client.push_blob(reference, described, UploadSource.of(layer))
                await client.push_blob(reference, config_blob, UploadSource.of(config))
                await client.push_manifest(reference, image_manifest(config_blob, (described,)))

        asyncio.run(push())
        return str(reference)

    def push_server(
        self, base: str, folder: Path, name: str, files: Mapping[str, str], packages: Sequence[str] = ()
    ) -> str:
        """A container of somebody else's, by our own builder; gives its name. What is fetched is kept for the next run.

        `files`: in `/var/azureml-app/<name>`; the first is its script.
        """
        raw: dict[str, Any] = {"docker": {"baseImage": base}, "python": {"userManagedDependencies": True}}
        if packages:
            raw = {"docker": {"baseImage": base}, "pipPackages": list(packages)}
        (folder / name).mkdir()
        for path, text in files.items():
            (folder / name / path).write_text(text)
        definition, place = read_environment(raw, folder), RegistryPlace.parse(self.host)
        settings = BuildSettings(cache=build.folder() / "images")

        async def push() -> str:
            async with RegistryClient() as client:
                if not files:
                    return str((await ensure_image(client, definition, place, settings=settings)).image)
                application = Application(next(iter(files)), folder / name)
                _, made = await ensure_service(client, definition, application, place, settings=settings)
                return str(made.image)

        return asyncio.run(push())

    def stop(self) -> None:
        """Ends it."""
        self._running.end()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
