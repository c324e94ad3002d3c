"""The resource that finds or builds an image in the registry of a cluster."""

from collections.abc import Mapping
from typing import Any

import pulumi

from aks_inference.images.registry import RegistryPlan
from aks_inference.resources import Image


def image_resource(
    name: str, registry: RegistryPlan, content: Mapping[str, Any], opts: pulumi.ResourceOptions
) -> Image:
    """`content`: what the image holds, as the Image's inputs say it."""
    wire = registry.settings
    password = registry.login.get("password") or wire.password
    inputs = {
        "registry": wire.server,
        "sharedRegistries": list(wire.shared_registries) or None,
        "registryTier": wire.tier,
        "username": registry.login.get("username") or wire.username,
        "password": None if password is None else pulumi.Output.secret(password),
        "caFile": wire.ca_file,
        "plainHttp": wire.plain_http or None,
        "baseImage": wire.base_image,
        "builder": wire.builder,
        "registryId": wire.resource_id,
        "buildArguments": list(wire.build_arguments) or None,
    }
    return Image(name, {**inputs, **content}, opts)
