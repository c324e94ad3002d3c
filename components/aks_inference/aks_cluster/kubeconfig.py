"""The kubeconfig of a cluster, as Azure gives it to whoever is signed in.

A cluster with Entra ID has no password of its own: its kubeconfig names a command, kubelogin, that gets a token. Azure
writes it for people who sign in with a code on a web page; here it is told to sign in as Pulumi itself is signed in.
"""

import base64
import shutil
from collections.abc import Mapping
from typing import Any

import pulumi
import yaml

from aks_inference.aks_cluster.azure import AZURE_NATIVE_VERSION

KUBELOGIN = "kubelogin"
LOGIN_WORD = "AAD_LOGIN_METHOD"
"""kubelogin's own variable: the user's word about how to sign in (azure.github.io/kubelogin, login modes)."""
_TOKEN = "azure-native:containerservice:listManagedClusterUserCredentials"  # noqa: S105 - of a function
_PROVIDER = "azure-native"
_NO_KUBELOGIN = (
    "the cluster signs in by Entra ID, and kubelogin is not on PATH: install it (`az aks install-cli`, or "
    "https://azure.github.io/kubelogin)"
)


def kubeconfig_of(
    cluster_id: pulumi.Output[str], environment: Mapping[str, str], provider: pulumi.ProviderResource | None = None
) -> pulumi.Output[str]:
    """Secret. Not known before the cluster is there: its id is not. `provider`: of another subscription."""
    group, cluster = (
        cluster_id.apply(lambda text: text.split("/")[4]),
        cluster_id.apply(lambda text: text.split("/")[8]),
    )
    versioned = pulumi.InvokeOptions(version=AZURE_NATIVE_VERSION, provider=provider)
    inputs = {"resourceGroupName": group, "resourceName": cluster, "format": "exec"}
    found = pulumi.runtime.invoke_output(_TOKEN, inputs, versioned)
    return pulumi.Output.secret(found.apply(lambda given: _decoded(given, environment)))


def subscription_provider(
    name: str, subscription: str | None, environment: Mapping[str, str], opts: pulumi.ResourceOptions
) -> pulumi.ProviderResource | None:
    """A provider for a cluster whose subscription is not the one that Pulumi works in."""
    own = pulumi.Config(_PROVIDER).get("subscriptionId") or environment.get("ARM_SUBSCRIPTION_ID")
    if subscription is None or subscription.lower() == (own or "").lower():
        return None
    pinned = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=AZURE_NATIVE_VERSION), opts)
    return pulumi.ProviderResource(_PROVIDER, f"{name}-subscription", {"subscriptionId": subscription}, pinned)


def signed_in(text: str, environment: Mapping[str, str]) -> str:
    """The kubeconfig with a login that asks nobody. Raises RunError where kubelogin is needed and missing."""
    document: Any = yaml.safe_load(text)
    users = document.get("users") if isinstance(document, dict) else None
    changed = False
    for entry in users or ():
        command = (entry.get("user") or {}).get("exec") or {}
        if command.get("command") != KUBELOGIN:
            continue
        if shutil.which(KUBELOGIN, path=environment.get("PATH")) is None:
            raise pulumi.RunError(_NO_KUBELOGIN)
        command["args"] = _arguments(command.get("args") or (), login_of(environment))
        changed = True
    return yaml.safe_dump(document, sort_keys=False) if changed else text


def login_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """kubelogin's arguments for the sign-in that pulumi-azure-native uses in this environment. No secret is in them:
    kubelogin reads those from the same variables."""
    if word := environment.get(LOGIN_WORD):
        return ("--login", word)
    if environment.get("AZURE_FEDERATED_TOKEN_FILE"):
        return ("--login", "workloadidentity")
    if environment.get("ARM_CLIENT_ID") and environment.get("ARM_CLIENT_SECRET"):
        return ("--login", "spn", "--use-azurerm-env-vars")
    if environment.get("AZURE_CLIENT_ID") and environment.get("AZURE_CLIENT_SECRET"):
        return ("--login", "spn")
    if environment.get("ARM_USE_MSI", "").lower() == "true":
        return ("--login", "msi")
    return ("--login", "azurecli")


def _arguments(given: Any, login: tuple[str, ...]) -> list[str]:  # noqa: ANN401 - YAML
    """Azure's arguments with another login; tenant and application of the server stay."""
    kept, skip = [], False
    for word in map(str, given):
        if skip or word in ("-l", "--login"):
            skip = not skip
        elif not word.startswith("--login="):
            kept.append(word)
    return [*kept, *login]


def _decoded(found: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    listed = found.get("kubeconfigs") or ()
    if not listed:
        raise pulumi.RunError("Azure gives no kubeconfig of the cluster: the role Cluster User is needed on it")
    return signed_in(base64.b64decode(listed[0]["value"]).decode(), environment)
