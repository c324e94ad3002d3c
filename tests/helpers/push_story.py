"""A service whose script changes, at a registry."""

from pathlib import Path
from typing import Any

from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    Ensured,
    RegistryClient,
    RegistryPlace,
    ensure_service,
    read_environment,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.environment.model import Platform

SERVICES = "push/env-services"


def services_of(registry: Any) -> Path:
    """Where the registry keeps the repository of services."""
    return Path(registry.storage / "docker/registry/v2/repositories" / SERVICES)


class Story:
    """One service whose script changes."""

    def __init__(self, client: RegistryClient, host: str, base: object, folder: Path) -> None:
        self.client = client
        self.place = RegistryPlace.parse(f"{host}/push/env")
        raw = {"docker": {"baseImage": str(base)}, "python": {"userManagedDependencies": True}}
        self.definition = read_environment(raw, Path())
        self.settings = BuildSettings(cache=folder / "cache")
        self.source = folder / "service"
        self.source.mkdir()

    async def apply(self, script: str) -> Ensured:
        (self.source / "score.py").write_text(script)
        application = Application("score.py", self.source)
        _, made = await ensure_service(self.client, self.definition, application, self.place, settings=self.settings)
        return made

    async def whole(self, service: Ensured) -> bool:
        """Whether the repository has all that the image's manifest names."""
        image = await fetch_image(self.client, service.image, Platform())
        return all([await self.client.has_blob(service.image, layer.digest) for layer in image.layers])
