"""Which builder is taken, and whether Azure can build for a registry: known without asking anybody."""

from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.azure.arm import AzureFailed, credentials_of
from aks_inference_runtime.images import Builder, read_environment
from aks_inference_runtime.images.build.acr import AzureBuild, azure_build, resource_problem
from aks_inference_runtime.images.build.choose import choose
from standin_tasks import REGISTRY

CONDA = {"dependencies": ["python=3.11", "numpy"]}
CONDA_ONLY = read_environment({"python": {"condaDependencies": CONDA}}, Path())
WHEELS = read_environment({"pipPackages": ["numpy"]}, Path())


@pytest.mark.parametrize(
    ("definition", "wanted", "programs", "no_tasks", "chosen"),
    [
        (CONDA_ONLY, Builder.AUTO, (), "", Builder.ACR_TASKS),
        (CONDA_ONLY, Builder.AUTO, ("podman",), "", Builder.PODMAN),
        (WHEELS, Builder.AUTO, (), "", Builder.ASSEMBLE),
        (WHEELS, Builder.ACR_TASKS, ("buildah",), "", Builder.ACR_TASKS),
        (CONDA_ONLY, Builder.AUTO, (), "no", None),
        (WHEELS, Builder.ACR_TASKS, (), "no", None),
    ],
)
def test_when_azure_builds(
    definition: Any, wanted: Builder, programs: tuple[str, ...], no_tasks: str, chosen: Builder | None
) -> None:
    def which(name: str) -> str | None:
        return name if name in programs else None

    if chosen is None:
        with pytest.raises(InvalidInput, match="builder: "):
            choose(definition, wanted, which, no_tasks)
    else:
        assert choose(definition, wanted, which, no_tasks).builder == chosen


def test_whether_azure_can_is_known_without_asking() -> None:
    signed_in = {"ARM_TENANT_ID": "t", "ARM_CLIENT_ID": "c", "ARM_CLIENT_SECRET": "s", "PATH": ""}
    found = azure_build(signed_in, Builder.AUTO, None)
    assert found is not None
    assert found.cannot("team.azurecr.io") == ""
    assert found.cannot("team-d1.azurecr.cn") == ""
    assert "none of Azure's" in found.cannot("docker.io")
    assert "no Azure credentials" in AzureBuild(credentials_of({"PATH": ""})).cannot("team.azurecr.io")
    assert azure_build(signed_in, Builder.BUILDAH, None) is None
    strange = {"ARM_ENVIRONMENT": "mars"}
    assert azure_build(strange, Builder.AUTO, None) is None
    with pytest.raises(AzureFailed, match="mars"):
        azure_build(strange, Builder.ACR_TASKS, None)
    assert resource_problem(REGISTRY) == ""
    assert "is not the id of a registry" in resource_problem(f"{REGISTRY}/tasks/x")
