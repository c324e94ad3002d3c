"""Registries and storage in another region are told at preview, where Azure can be asked."""

from typing import Any

import pytest

from aks_inference_provider.resources.aks_regions import cautions, wanted
from aks_inference_provider.wire import UNKNOWN

GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers"
REGISTRY = f"{GROUP}/Microsoft.ContainerRegistry/registries/Models"
STORAGE = f"{GROUP}/Microsoft.Storage/storageAccounts/acmemodels"


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ({"the registry Models": "westeurope"}, []),
        ({"the registry Models": "northeurope"}, ["the registry Models is in northeurope, the cluster in West Europe"]),
        ({"the registry Models": None}, ["does not exist, or you have no right to see it"]),
    ],
)
def test_what_is_said(regions: dict[str, str | None], says: list[str]) -> None:
    found = list(cautions("West Europe", regions))
    assert len(found) == len(says)
    assert all(text in caution for text, caution in zip(says, found, strict=True))


def test_what_is_known_later_is_not_looked_up() -> None:
    assert wanted({"registryIds": [UNKNOWN, REGISTRY]}) == ([REGISTRY], [])


@pytest.mark.long
def test_at_preview(stack: Any, azure: Any, tables: Any) -> None:
    from standin_http import ArmServer

    registry = {"location": "northeurope", "sku": {"name": "Premium"}, "properties": {}}
    azure.put(tables.kind("azure-native:containerregistry:Registry"), REGISTRY, registry)
    storage = {"location": "eastus", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}, "properties": {}}
    azure.put(tables.kind("azure-native:storage:StorageAccount"), STORAGE, storage)
    runtime = 'runtime=dict(image="acme.azurecr.io/runtime:1", model_store="az://acmemodels/models")'
    stack.program(f'registry_ids=["{REGISTRY}"]', runtime, 'vm_size="Standard_D4s_v5"')
    assert "the cluster in westeurope" not in stack.preview()
    with ArmServer(azure) as server:
        stack.environment |= server.environment
        said = stack.preview()
    assert "warning: the registry Models is in northeurope, the cluster in westeurope" in said
    assert "warning: the storage account acmemodels is in eastus, the cluster in westeurope" in said
