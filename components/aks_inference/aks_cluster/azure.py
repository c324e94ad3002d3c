"""The azure-native resources of a cluster, by token and inputs.

The azure-native SDK for Python is 356 MB installed; a token, the inputs of version 3.29.0 and the plugin's version say
the same. A test validates the inputs against the request bodies of the API versions that 3.29.0 uses.
"""

from collections.abc import Mapping
from typing import Any

import pulumi

AZURE_NATIVE_VERSION = "3.29.0"
"""ContainerService API 2025-09-01, ManagedIdentity 2023-01-31, Authorization 2022-04-01, Resources 2024-03-01."""


class AzureResource(pulumi.CustomResource):
    """A resource of azure-native by its token."""

    def __init__(
        self,
        token: str,
        name: str,
        inputs: Mapping[str, Any],
        opts: pulumi.ResourceOptions,
        outputs: tuple[str, ...] = (),
    ) -> None:
        """What is None is left out."""
        given = {key: value for key, value in inputs.items() if value is not None}
        pinned = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=AZURE_NATIVE_VERSION), opts)
        # Outputs must be named to be resolved.
        named = dict.fromkeys(("name", *outputs))
        super().__init__(f"azure-native:{token}", name, {**named, **given}, pinned)

    def output(self, name: str) -> pulumi.Output[Any]:
        """An output by its name on the wire."""
        value: pulumi.Output[Any] = pulumi.get(self, name)
        return value

    @property
    def azure_name(self) -> pulumi.Output[str]:
        """The name in Azure."""
        return self.output("name")


def role_definition(role: str) -> str:
    """The id of a built-in role."""
    return f"/providers/Microsoft.Authorization/roleDefinitions/{role}"


def subnet_of(names: tuple[str, str, str], any_id: str) -> str:
    """The id of a subnet in the subscription of another resource's id."""
    group, network, subnet = names
    subscription = any_id.split("/")[2]
    provider = "providers/Microsoft.Network/virtualNetworks"
    return f"/subscriptions/{subscription}/resourceGroups/{group}/{provider}/{network}/subnets/{subnet}"
