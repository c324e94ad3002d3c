"""The kubeconfig of a cluster with Entra ID signs in as Pulumi does, and never asks a person."""

from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.kubeconfig import login_of, signed_in
from aks_inference.aks_cluster.purpose import Purpose

GIVEN = ["get-token", "--environment", "AzurePublicCloud", "--server-id", "of-aks", "--tenant-id", "t"]


def config(user: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "users": [{"name": "me", "user": user}]})


@pytest.mark.parametrize(
    ("environment", "login"),
    [
        ({}, ["--login", "azurecli"]),
        ({"ARM_CLIENT_ID": "c", "ARM_CLIENT_SECRET": "s"}, ["--login", "spn", "--use-azurerm-env-vars"]),
        ({"AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}, ["--login", "spn"]),
        ({"AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/f"}, ["--login", "workloadidentity"]),
        ({"ARM_USE_MSI": "true"}, ["--login", "msi"]),
        ({"AAD_LOGIN_METHOD": "azd", "ARM_USE_MSI": "true"}, ["--login", "azd"]),
        ({"ARM_CLIENT_ID": "c"}, ["--login", "azurecli"]),
    ],
)
@pytest.mark.parametrize("written", [["--login", "devicecode"], ["-l", "devicecode"], ["--login=devicecode"], []])
def test_how_it_signs_in(environment: dict[str, str], login: list[str], written: list[str], tmp_path: Path) -> None:
    program = tmp_path / "kubelogin"
    program.touch(mode=0o755)
    command = {"command": "kubelogin", "args": [*GIVEN[:3], *written, *GIVEN[3:]], "env": None}
    text = signed_in(config({"exec": command}), {**environment, "PATH": str(tmp_path)})
    (entry,) = yaml.safe_load(text)["users"]
    assert entry["user"]["exec"]["args"] == [*GIVEN, *login]
    assert list(login_of(environment)) == login
    assert "'s'" not in text


def test_others_stay_as_they_are() -> None:
    for user in ({"token": "x"}, {"exec": {"command": "another", "args": ["--login", "devicecode"]}}):
        assert signed_in(config(user), {"PATH": "/nowhere"}) == config(user)


def test_without_kubelogin_it_is_said() -> None:
    with pytest.raises(pulumi.RunError, match="kubelogin is not on PATH"):
        signed_in(config({"exec": {"command": "kubelogin"}}), {"PATH": "/nowhere"})


def test_subscription_of_an_attached_cluster() -> None:
    by_id = AttachPlan(Purpose.FAST_PROD, "/subscriptions/s1/resourceGroups/g/providers/p/m/c", None, None, None, None)
    assert by_id.subscription == "s1"
    assert AttachPlan(Purpose.FAST_PROD, None, "g", "c", "s2", None).subscription == "s2"
    assert AttachPlan(Purpose.FAST_PROD, None, "g", "c", None, None).subscription is None
