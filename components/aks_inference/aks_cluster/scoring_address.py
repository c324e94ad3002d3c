"""The scoring address of a cluster: load balancer, TLS and name, as arguments of the InferenceRuntime on it.

Azure ML's arguments are the cluster's; what they mean is the runtime's business, and so are most of their rules.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any, Protocol
from urllib.parse import urlsplit

from aks_inference.aks_cluster.groups import ClusterRuntimeSpec
from aks_inference.cluster_rules.model import Cluster, Tls
from aks_inference.facts import short_region
from aks_inference.findings import Finding, Severity, under
from aks_inference.values import is_late, read

INTERNAL = "service.beta.kubernetes.io/azure-load-balancer-internal"
INTERNAL_SUBNET = f"{INTERNAL}-subnet"
"""Doc internal-lb.md: what makes the router's Service an internal one, and in which subnet."""
TLS_ARGUMENTS = (
    "ssl_cname",
    "ssl_cert_pem_file",
    "ssl_key_pem_file",
    "ssl_key_vault_secret_id",
    "minimum_tls_version",
)
"""Of the cluster and of the runtime by the same names."""
SCORING_ADDRESS = (
    "load_balancer_type",
    "load_balancer_subnet",
    *TLS_ARGUMENTS,
    "ssl_key_vault_id",
    "leaf_domain_label",
)
SUFFIX = 6
"""Characters behind a leaf domain label, as Azure ML has it (azureml-v1 1.3)."""
VAULT_IDENTITY = ("ssl_key_vault_client_id", "ssl_key_vault_tenant_id")
"""Arguments of the runtime: who fetches a certificate from a Key Vault. The cluster's add-on brings its own."""
IMAGE_VOLUMES_MINOR = 35
"""Of Kubernetes 1: the first with image volumes by default (KEP-4639)."""
LATER = "(known later)"
_VAULT_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.KeyVault/vaults/(?P<name>[^/]+)", re.IGNORECASE
)


class Arguments(Protocol):
    """Of AksInferenceCluster, converted."""

    @property
    def cluster_purpose(self) -> str: ...
    @property
    def runtime(self) -> dict[str, Any] | None: ...
    @property
    def kubernetes_version(self) -> str | None: ...
    @property
    def load_balancer_type(self) -> str: ...
    @property
    def load_balancer_subnet(self) -> str | None: ...
    @property
    def ssl_cname(self) -> str | None: ...
    @property
    def ssl_cert_pem_file(self) -> str | None: ...
    @property
    def ssl_key_pem_file(self) -> str | None: ...
    @property
    def ssl_key_vault_secret_id(self) -> str | None: ...
    @property
    def ssl_key_vault_id(self) -> Any: ...  # noqa: ANN401 - a text or an output of one
    @property
    def leaf_domain_label(self) -> str | None: ...
    @property
    def overwrite_existing_domain(self) -> bool | None: ...
    @property
    def minimum_tls_version(self) -> str | None: ...


def tls_of(spec: Arguments) -> Tls:
    """The arguments about the scoring address, in the words of the rules."""
    return Tls(
        cname=spec.ssl_cname,
        cert_pem_file=spec.ssl_cert_pem_file,
        key_pem_file=spec.ssl_key_pem_file,
        key_vault_secret_id=spec.ssl_key_vault_secret_id,
        leaf_domain_label=spec.leaf_domain_label,
        overwrite_existing_domain=bool(spec.overwrite_existing_domain),
        minimum_version=spec.minimum_tls_version,
        load_balancer_type=spec.load_balancer_type,
        load_balancer_subnet=spec.load_balancer_subnet,
        served=spec.runtime is not None,
    )


def runtime_arguments(spec: Arguments) -> tuple[Mapping[str, Any] | None, list[Finding]]:
    """What the InferenceRuntime on the cluster is given, short of its kubeconfig and of a leaf domain's whole name."""
    if spec.runtime is None:
        return None, []
    # It loads what is about Kubernetes; clusters without it do not wait for that.
    from aks_inference.inference_runtime.spec import plan_runtime
    from aks_inference.inference_runtime.tls import LETS_ENCRYPT

    got = read(ClusterRuntimeSpec, spec.runtime)
    inner = spec.load_balancer_type == "InternalLoadBalancer"
    balancer = {INTERNAL: "true"} if inner else {}
    if inner and spec.load_balancer_subnet is not None:
        balancer[INTERNAL_SUBNET] = spec.load_balancer_subnet
    arguments = {
        name: value
        for name in ClusterRuntimeSpec.model_fields
        if (value := getattr(got.spec, name)) is not None and name != "service_annotations"
    }
    arguments["service_annotations"] = {**balancer, **got.spec.service_annotations}
    arguments["cluster_purpose"] = spec.cluster_purpose
    tls = _tls_arguments(spec, got.spec.acme_server or LETS_ENCRYPT)
    said = {finding.path for finding in got.findings}
    _, found = plan_runtime("runtime", {**arguments, **tls})
    if spec.leaf_domain_label is not None:
        # Stood for the name; not there where the rules of the cluster refuse what is declared.
        tls.pop("ssl_cname", None)
    for name in VAULT_IDENTITY:
        # Stood for what the cluster's add-on brings.
        tls.pop(name, None)
    # A wrong purpose is said of the cluster itself, a warning by the runtime.
    own = [
        one
        for one in found
        if one.path[:1] != ("cluster_purpose",) and one.path not in said and one.severity is Severity.ERROR
    ]
    own += _volume_rules(spec, got.spec)
    about_tls = [one for one in own if one.path[:1] and one.path[0] in tls]
    others = [one for one in own if one not in about_tls]
    return {**arguments, **tls}, [*under(("runtime",), [*got.findings, *others]), *about_tls]


def _volume_rules(spec: Arguments, runtime: ClusterRuntimeSpec) -> Iterator[Finding]:
    """AKS turns no feature gates on: what its version has by default is what there is."""
    version = spec.kubernetes_version
    if runtime.model_volumes is not True or not isinstance(version, str):
        return
    found = re.match(r"1\.(\d+)", version)
    if found and int(found[1]) < IMAGE_VOLUMES_MINOR:
        rule = f"needs Kubernetes 1.{IMAGE_VOLUMES_MINOR}, and @kubernetes_version is {version}"
        yield Finding(("model_volumes",), rule, "leave it out, or use a newer version")


def _tls_arguments(spec: Arguments, acme_server: str) -> dict[str, Any]:
    """Nothing where the rules of the cluster refuse them: then those say it."""
    from aks_inference.cluster_rules.tls import check_tls

    if any(finding.severity is Severity.ERROR for finding in check_tls(Cluster(tls=tls_of(spec)))):
        return {}
    tls: dict[str, Any] = {name: value for name in TLS_ARGUMENTS if (value := getattr(spec, name)) is not None}
    if spec.leaf_domain_label is not None:
        tls |= {"ssl_cname": f"{spec.leaf_domain_label}.example", "acme_server": acme_server}
    if spec.ssl_key_vault_secret_id is not None:
        tls |= dict.fromkeys(VAULT_IDENTITY, LATER)
    return tls


def address_findings(spec: Arguments, wrong: Set[str | int]) -> Iterator[Finding]:
    """What has no router to be about; refused, never ignored.

    `wrong`: arguments that have another error.
    """
    if not wrong.isdisjoint(SCORING_ADDRESS):
        return
    yield from _vault(spec)
    if spec.runtime is not None:
        return
    inner = spec.load_balancer_type == "InternalLoadBalancer"
    given = {name: getattr(spec, name) for name in ("ssl_cname", "leaf_domain_label", "minimum_tls_version")}
    if inner:
        given["load_balancer_type"] = spec.load_balancer_type
    for name, value in given.items():
        if value is not None:
            rule = "is about the router's address, and there is no @runtime on the cluster"
            yield Finding((name,), rule, "add @runtime, or leave it out", value)


def _vault(spec: Arguments) -> Iterator[Finding]:
    """The vault that a role is given at."""
    path, vault = ("ssl_key_vault_id",), spec.ssl_key_vault_id
    if vault is None:
        return
    if spec.ssl_key_vault_secret_id is None:
        yield Finding(path, "goes only with @ssl_key_vault_secret_id", "give both, or leave it out", vault)
    elif isinstance(vault, str) and not is_late(vault):
        found = _VAULT_ID.fullmatch(vault)
        host = (urlsplit(spec.ssl_key_vault_secret_id).hostname or "").partition(".")[0]
        if found is None:
            mend = "write /subscriptions/…/resourceGroups/…/providers/Microsoft.KeyVault/vaults/…"
            yield Finding(path, "is not the resource id of a Key Vault", mend, vault)
        elif found["name"].lower() != host:
            rule = f"is the vault {found['name']}; the certificate of @ssl_key_vault_secret_id is in {host}"
            yield Finding(path, rule, "name the vault of the certificate", vault)


def leaf_label(label: str, cluster_id: str) -> str:
    """The label with its suffix: of the cluster's id, so that it is its own and stays, whoever applies."""
    digest = hashlib.sha256(cluster_id.lower().encode()).digest()
    return label + base64.b32encode(digest).decode().lower()[:SUFFIX]


def leaf_host(label: str, location: str) -> str:
    """The name that Azure gives a public address with a label."""
    from aks_inference.cluster_rules.clouds import cloud_of

    region = short_region(location)
    return f"{label}.{cloud_of(location).scoring.replace('<region>', region)}"
