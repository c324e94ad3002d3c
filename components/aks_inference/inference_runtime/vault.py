"""A certificate in a Key Vault: its address, and how the Secrets Store CSI driver brings it into the cluster.

The driver keeps a Secret in step with the vault as long as a pod mounts its volume. A pod of its own does that, not the
routers: they read the Secret, so that one that starts while the vault cannot be reached serves with what was brought.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aks_inference.findings import Finding
from aks_inference.manifests import Manifest, named
from aks_inference.pods import (
    MONITORING_LABEL,
    RESTRICTED,
    agent_probes,
    downward,
    labels,
    pod_security,
    policy,
    ports,
)
from aks_inference.values import is_late
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import GROUP

CLOUDS = {
    "vault.azure.net": "AzurePublicCloud",
    "vault.usgovcloudapi.net": "AzureUSGovernmentCloud",
    "vault.azure.cn": "AzureChinaCloud",
}
"""Suffix of a vault's host → the driver's name of the cloud (secrets-store-csi-driver-provider-azure, cloudName)."""
DRIVER = "secrets-store.csi.k8s.io"
_CLASS = "secrets-store.csi.x-k8s.io/v1"
_FOLDER = "/var/run/aks-inference-certificate"
_ADDRESS = re.compile(
    r"https://(?P<vault>(?=[a-z0-9-]{3,24}\.)[a-z](?:-?[a-z0-9])+)\.(?P<suffix>[a-z.]+)/(?:secrets|certificates)/"
    r"(?P<name>[a-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32})?)?",
    re.IGNORECASE,
)
"""Doc about-keys-secrets-certificates.md, vault and object names: a vault's has 3 to 24 letters, digits and hyphens, no
two of them side by side; versions are 32 hexadecimal digits."""
_CLASS_ANNOTATION = f"{GROUP}/certificate"
"""On the pod: a digest of where its certificate comes from; another place is mounted by another pod."""


@dataclass(frozen=True)
class VaultSecret:
    """Where a certificate is. A certificate's chain with its key is the secret of the same name."""

    vault: str
    host: str
    name: str
    version: str
    """Empty: the newest."""
    cloud: str


@dataclass(frozen=True)
class VaultPlan:
    """A certificate from a vault, and who fetches it."""

    secret: VaultSecret
    client_id: Any
    """Of the managed identity that the driver uses: a text or an output of one."""
    tenant_id: Any


def parse_secret(text: str) -> VaultSecret | None:
    """The parts of a secret's or a certificate's identifier; None: it is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None or (cloud := CLOUDS.get(found["suffix"].lower())) is None:
        return None
    vault, suffix = found["vault"].lower(), found["suffix"].lower()
    return VaultSecret(vault, f"{vault}.{suffix}", found["name"], (found["version"] or "").lower(), cloud)


def secret_findings(argument: str, text: str) -> Iterator[Finding]:
    """What is wrong with an identifier."""
    if parse_secret(text) is None:
        rule = "is no identifier of a secret or certificate in a Key Vault"
        mend = f"write https://<vault>.{next(iter(CLOUDS))}/secrets/<name>; without a version renewals are followed"
        yield Finding((argument,), rule, mend, text)


def provider_class(vault: VaultPlan, namespace: str) -> Manifest:
    """What the driver is to fetch, and the Secret that it keeps of it."""
    secret = vault.secret
    # The driver reads its list as YAML within YAML; JSON is YAML.
    one = json.dumps({"objectName": secret.name, "objectType": "secret", "objectVersion": secret.version})
    # A file of a certificate's secret has key and chain; a Secret of this type gets each its own part.
    data = [{"objectName": secret.name, "key": key} for key in (k8s.TLS_KEY_FIELD, k8s.TLS_CHAIN_FIELD)]
    spec: Manifest = {
        "provider": "azure",
        "parameters": {
            "usePodIdentity": "false",
            "useVMManagedIdentity": "true",
            "userAssignedIdentityID": vault.client_id,
            "tenantID": vault.tenant_id,
            "keyvaultName": secret.vault,
            "cloudName": secret.cloud,
            "objects": json.dumps({"array": [one]}),
        },
        "secretObjects": [{"secretName": k8s.VAULT_TLS_NAME, "type": k8s.TLS_TYPE, "data": data}],
    }
    router = labels(k8s.ROUTER_COMPONENT)
    return named(_CLASS, "SecretProviderClass", k8s.VAULT_TLS_NAME, namespace, labels=router, spec=spec)


def keeper(
    vault: VaultPlan, host: object, namespace: str, image: str, pull_secrets: list[Manifest]
) -> Iterator[Manifest]:
    """The pod that mounts the volume; it is ready once the Secret holds a certificate for the host."""
    selected = labels(k8s.CERTIFICATE_COMPONENT)
    monitoring = {"namespaceSelector": {"matchLabels": {MONITORING_LABEL: "true"}}}
    rule = {"from": [monitoring], "ports": ports(k8s.AGENT_PORT)}
    yield policy(namespace, k8s.CERTIFICATE_NAME, selected, rule)
    container = {
        "name": "certificate",
        "image": image,
        "command": ["python", "-m", "aks_inference_runtime.kubernetes.certificate"],
        "env": [
            {"name": k8s.CERTIFICATE_HOST_VARIABLE, "value": host},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *downward("POD_NAME", "POD_NAMESPACE", "POD_IP"),
        ],
        "ports": [{"name": "agent", "containerPort": k8s.AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        **agent_probes(),
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "vault", "mountPath": _FOLDER, "readOnly": True}],
    }
    attributes = {"secretProviderClass": k8s.VAULT_TLS_NAME}
    pod = {
        # It reads what the routers read.
        "serviceAccountName": k8s.ROUTER_NAME,
        "nodeSelector": k8s.LINUX_NODES,
        "terminationGracePeriodSeconds": 5,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [{"name": "vault", "csi": {"driver": DRIVER, "readOnly": True, "volumeAttributes": attributes}}],
        **({"imagePullSecrets": pull_secrets} if pull_secrets else {}),
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selected},
        # The Secret goes with the last pod that mounts it.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": selected, "annotations": {_CLASS_ANNOTATION: _digest(vault)}}, "spec": pod},
    }
    yield named("apps/v1", "Deployment", k8s.CERTIFICATE_NAME, namespace, labels=selected, spec=spec)


def describe_vault(vault: VaultPlan) -> str:
    """For the preview."""
    secret = vault.secret
    told = f"certificate: {secret.name} in the Key Vault {secret.vault}, brought by the Secrets Store CSI driver; "
    if secret.version:
        return f"{told}its version {secret.version} for good: leave the version out to follow renewals"
    return f"{told}a renewed one is served within minutes"


def _digest(vault: VaultPlan) -> Any:  # noqa: ANN401 - a text or an output of one
    secret = vault.secret
    parts = (secret.host, secret.name, secret.version, vault.client_id, vault.tenant_id)
    if not any(is_late(part) for part in parts):
        return _hash(parts)
    import pulumi  # not for checks without a stack

    return pulumi.Output.all(*parts).apply(_hash)


def _hash(parts: Any) -> str:  # noqa: ANN401 - texts
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
