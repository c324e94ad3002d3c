"""Which hosts must resolve and be reachable, in which phase, for whom, and what fails without them (aks-rules 5)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from aks_inference.cluster_rules.clouds import CloudNames, cloud_of
from aks_inference.cluster_rules.model import Cluster
from aks_inference.facts import host_rows

_EGRESS = "Doc outbound-rules-control-egress.md 2026-06-18"
_RUNTIME = "the runtime's own connections"


class Phase(StrEnum):
    """When a host is needed."""

    CREATE = "create or attach"
    ROUTER_START = "router start"
    ROUTER_RUNNING = "router running"
    SERVICE_DEPLOYMENT = "service deployment"


class From(StrEnum):
    """Who opens the connection: where a check must run."""

    NODES = "nodes"
    CLUSTER = "pods of the cluster"
    RUNTIME = "pods of the runtime"
    SERVICES = "pods of the services"
    OPERATOR = "the machine that runs Pulumi"
    CLIENTS = "clients of the services"


@dataclass(frozen=True)
class RequiredHost:
    """One host."""

    host: str
    """A name; `*.…`: every name under it (a firewall rule, not to be resolved); `<…>`: known after the creation."""
    port: int
    protocol: str
    """`HTTPS`, `HTTP`, `TCP` or `UDP`."""
    phases: tuple[Phase, ...]
    source_of_traffic: tuple[From, ...]
    needed_for: str
    without_it: str
    source: str
    required: bool = True
    """False: recommended."""

    @property
    def can_be_checked(self) -> bool:
        """Whether the name is one that can be resolved."""
        return "*" not in self.host and "<" not in self.host and not self.host.startswith("AzureCloud.")


@dataclass(frozen=True)
class StackNames:
    """The stack's own names. None: not known yet; then a pattern stands in its place."""

    api_server: str | None = None
    registries: tuple[str, ...] = ()
    """Login servers: `myregistry.azurecr.io`, or any other registry's host, with its port where that is not 443."""
    storage_accounts: tuple[str, ...] = ()
    """Of models and code."""
    data_accounts: tuple[str, ...] = ()
    """Storage accounts where services collect model data."""
    identity_providers: tuple[str, ...] = ()
    """Hosts of the token issuers, where services use tokens."""
    scoring_host: str | None = None
    key_vault: str | None = None
    dns_servers: tuple[str, ...] = ()
    acme: str | None = None
    """Directory of the authority that issues a leaf domain's certificate. Default with a label: Let's Encrypt's."""


_LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
_ISSUED = (Phase.ROUTER_START, Phase.ROUTER_RUNNING)
_NOT_ISSUED = "no certificate is issued, or it is not renewed before it ends"


@dataclass(frozen=True)
class _Need:
    phases: tuple[Phase, ...]
    traffic: tuple[From, ...]
    without_it: str


_SCOPES: dict[str, _Need] = {
    "aks-core": _Need(
        (Phase.CREATE, Phase.ROUTER_START, Phase.SERVICE_DEPLOYMENT),
        (From.NODES,),
        "nodes do not start or join; a node that is added later (scaling, upgrade) does not either",
    ),
    "aks-recommended": _Need(
        (Phase.CREATE,), (From.NODES,), "nodes get operating system patches only with new node images"
    ),
    "gpu": _Need(
        (Phase.CREATE,), (From.NODES,), "the GPU driver is not installed; pods that ask for a GPU stay pending"
    ),
    "azure-policy": _Need((Phase.CREATE,), (From.CLUSTER,), "policies are neither pulled nor reported"),
    "azure-monitor": _Need((Phase.ROUTER_RUNNING,), (From.CLUSTER,), "metrics and logs do not reach Azure Monitor"),
    "defender": _Need((Phase.ROUTER_RUNNING,), (From.CLUSTER,), "security events do not reach Defender"),
    "workload-identity": _Need(
        (Phase.ROUTER_START, Phase.SERVICE_DEPLOYMENT),
        (From.RUNTIME, From.SERVICES),
        "pods get no token for Azure: models cannot be fetched",
    ),
    "key-vault-csi": _Need(
        (Phase.ROUTER_START, Phase.ROUTER_RUNNING), (From.CLUSTER,), "the certificate is not mounted or not renewed"
    ),
    "cluster-extension": _Need((Phase.CREATE,), (From.CLUSTER,), "cluster extensions are not installed"),
    "azureml-extension": _Need((Phase.CREATE,), (From.CLUSTER,), "the Azure ML extension does not work"),
}


def required_hosts(cluster: Cluster, names: StackNames, cloud: CloudNames | None = None) -> tuple[RequiredHost, ...]:
    """Every host for this configuration, without doubles; by phase, then name.

    `cloud` None: the one of the cluster's region; a private cloud gives its own names.
    """
    cloud = cloud or cloud_of(cluster.location)
    found = [*_from_tables(cluster, names, cloud), *_network_rules(cluster, names), *_own(cluster, names, cloud)]
    return tuple(sorted(_merged(found), key=lambda one: (_order(one), one.host, one.port)))


def _scopes(cluster: Cluster) -> Iterator[str]:
    security = cluster.security
    yield "aks-core"
    yield "aks-recommended"
    on = {
        "gpu": any(
            pool.size is not None and pool.size.gpus > 0 and pool.gpu_driver != "None" for pool in cluster.pools
        ),
        "azure-policy": security.azure_policy,
        "azure-monitor": security.container_insights or security.managed_prometheus,
        "defender": security.defender,
        "workload-identity": security.workload_identity,
        "key-vault-csi": security.key_vault_secrets or cluster.tls.key_vault_secret_id is not None,
        "cluster-extension": cluster.azure_ml,
        "azureml-extension": cluster.azure_ml,
    }
    yield from (scope for scope, there in on.items() if there)


def _from_tables(cluster: Cluster, names: StackNames, cloud: CloudNames) -> Iterator[RequiredHost]:
    # A network isolated cluster pulls AKS's images through its private registry.
    isolated = cluster.egress.outbound_type == "none" and cluster.egress.bootstrap_cache_registry_id is not None
    for scope in _scopes(cluster):
        need = _SCOPES[scope]
        for row in host_rows():
            if row.cloud != cloud.tables or row.scope != scope:
                continue
            if (isolated and scope.startswith("aks-")) or row.host.startswith("*.hcp."):
                continue  # the API server has a row of its own
            for host in _filled(row.host, cluster, names):
                yield RequiredHost(
                    host=host,
                    port=row.port,
                    protocol=row.protocol,
                    phases=need.phases,
                    source_of_traffic=need.traffic,
                    needed_for=row.use or scope,
                    without_it=need.without_it,
                    source=f"Doc {row.source}",
                    required=scope != "aks-recommended",
                )


def _filled(pattern: str, cluster: Cluster, names: StackNames) -> list[str]:
    """A table's pattern with the stack's own names."""
    region = cluster.region
    text = pattern.replace("<region>", region) if region else pattern
    for placeholder, values in (
        ("<acr>", [registry.split(".")[0] for registry in names.registries]),
        ("<account>", list(dict.fromkeys((*names.storage_accounts, *names.data_accounts)))),
    ):
        if placeholder in text and values:
            return [text.replace(placeholder, value) for value in values]
    return [text]


def _network_rules(cluster: Cluster, names: StackNames) -> Iterator[RequiredHost]:
    """What is no HTTP: the tunnel of older control planes is left out, every supported version uses konnectivity."""
    servers = names.dns_servers or cluster.network.dns_servers
    for server in servers:
        yield RequiredHost(
            host=server,
            port=53,
            protocol="UDP",
            phases=tuple(Phase),
            source_of_traffic=(From.NODES,),
            needed_for="custom DNS server",
            without_it="no name resolves: nodes do not join, images are not pulled",
            source=_EGRESS,
        )


def _own(cluster: Cluster, names: StackNames, cloud: CloudNames) -> Iterator[RequiredHost]:
    yield _api_server(cluster, names, cloud)
    yield _own_host(
        cloud.resource_manager,
        (Phase.CREATE, Phase.SERVICE_DEPLOYMENT),
        (From.OPERATOR,),
        "Azure's API, for Pulumi",
        "nothing can be created or changed",
    )
    yield _own_host(
        cloud.sign_in,
        (Phase.CREATE, Phase.SERVICE_DEPLOYMENT),
        (From.OPERATOR,),
        "Entra sign-in, for Pulumi",
        "nothing can be created or changed",
    )
    for registry in names.registries or (f"<registry>.{cloud.registry}",):
        pulls, (host, port) = (Phase.ROUTER_START, Phase.SERVICE_DEPLOYMENT), _placed(registry)
        yield _own_host(
            host,
            pulls,
            (From.NODES, From.OPERATOR),
            "images of the runtime and the services",
            "pods stay in ImagePullBackOff; images cannot be built",
            port=port,
        )
        data = _data_endpoint(host, cluster, cloud)
        if data is not None:
            yield _own_host(
                data,
                pulls,
                (From.NODES,),
                "layers of images, where the registry has dedicated data endpoints; else its blob storage",
                "pods stay in ImagePullBackOff",
            )
    for account in names.storage_accounts or ("<storage account>",):
        yield _own_host(
            account if "." in account else f"{account}.{cloud.blob}",
            (Phase.SERVICE_DEPLOYMENT,),
            (From.SERVICES, From.OPERATOR),
            "models and code of services",
            "models cannot be uploaded or fetched; new replicas do not become ready",
        )
    for account in names.data_accounts:
        yield _own_host(
            account if "." in account else f"{account}.{cloud.blob}",
            (Phase.ROUTER_RUNNING,),
            (From.SERVICES,),
            "model data that services collect",
            "what services collect waits in their pods, and goes with them",
        )
    for issuer in names.identity_providers:
        host, port = _placed(issuer)
        yield _own_host(
            host,
            (Phase.ROUTER_RUNNING,),
            (From.RUNTIME, From.CLIENTS),
            "keys of the token issuer",
            "calls with a new token are answered 401 once the known keys are outdated",
            port=port,
        )
    if names.key_vault is not None:
        yield _own_host(
            names.key_vault if "." in names.key_vault else f"{names.key_vault}.{cloud.key_vault}",
            (Phase.ROUTER_START, Phase.ROUTER_RUNNING),
            (From.CLUSTER,),
            "certificate of the scoring address",
            "the router has no certificate, or keeps an old one",
        )
    yield from _certificate(cluster, names, cloud)


def _api_server(cluster: Cluster, names: StackNames, cloud: CloudNames) -> RequiredHost:
    access, region = cluster.access, cluster.region or "<region>"
    pattern = cloud.api_server.replace("<region>", region)
    if access.private_cluster and access.private_dns_zone != "none" and cloud.tables == "AzureCloud":
        word = "private" if access.vnet_integration else "privatelink"
        pattern = f"{word}.{region}.azmk8s.io"
    first = access.fqdn_subdomain or f"{cluster.dns_prefix or '<dns prefix>'}-<suffix>"
    private = "; it resolves only in networks that are linked to its private zone" if access.private_cluster else ""
    return RequiredHost(
        host=names.api_server or f"{first}.{pattern}",
        port=443,
        protocol="HTTPS",
        phases=tuple(Phase),
        source_of_traffic=(From.NODES, From.RUNTIME, From.OPERATOR),
        needed_for=f"API server{private}",
        without_it="nodes do not join; nothing can be deployed; router and autoscaler see no changes",
        source=f"{_EGRESS}; Doc private-clusters.md 2026-08-05",
    )


def _certificate(cluster: Cluster, names: StackNames, cloud: CloudNames) -> Iterator[RequiredHost]:
    scoring = names.scoring_host or cluster.tls.cname
    if not scoring and cluster.tls.leaf_domain_label is not None:
        suffix = cloud.scoring.replace("<region>", cluster.region or "<region>")
        scoring = f"{cluster.tls.leaf_domain_label}<suffix>.{suffix}"
    issued = names.acme or cluster.tls.leaf_domain_label is not None
    if issued:
        authority = urlsplit(names.acme or _LETS_ENCRYPT)
        yield _own_host(
            authority.hostname or "",
            _ISSUED,
            (From.CLUSTER,),
            "certificate of the leaf domain label",
            _NOT_ISSUED,
            port=authority.port or 443,
        )
    if scoring:
        yield _own_host(
            scoring,
            (Phase.ROUTER_RUNNING,),
            (From.CLIENTS, From.OPERATOR),
            "scoring address",
            "clients cannot call the services",
        )
    if scoring and issued:
        why = (
            "the authority's question for the certificate, by cert-manager first; the authority asks from the internet"
        )
        yield _own_host(scoring, _ISSUED, (From.CLUSTER,), why, _NOT_ISSUED, port=80, protocol="HTTP")


def _own_host(
    host: str,
    phases: tuple[Phase, ...],
    traffic: tuple[From, ...],
    needed_for: str,
    without_it: str,
    *,
    port: int = 443,
    protocol: str = "HTTPS",
) -> RequiredHost:
    return RequiredHost(host, port, protocol, phases, traffic, needed_for, without_it, _RUNTIME)


def _placed(place: str) -> tuple[str, int]:
    """`registry.example:5000` in two; HTTPS's own port where none is named."""
    host, _, port = place.partition(":")
    return host, int(port) if port.isdigit() else 443


def _data_endpoint(registry: str, cluster: Cluster, cloud: CloudNames) -> str | None:
    name, _, suffix = registry.partition(".")
    region = cluster.region
    return f"{name}.{region}.data.{suffix}" if suffix == cloud.registry and region and "<" not in name else None


def _merged(found: Iterable[RequiredHost]) -> Iterator[RequiredHost]:
    """One entry per host, port and protocol, with all phases and all that need it."""
    kept: dict[tuple[str, int, str], RequiredHost] = {}
    for one in found:
        key = (one.host.lower(), one.port, one.protocol)
        had = kept.get(key)
        kept[key] = one if had is None else _joined(had, one)
    yield from kept.values()


def _joined(one: RequiredHost, other: RequiredHost) -> RequiredHost:
    return replace(
        one,
        phases=tuple(phase for phase in Phase if phase in {*one.phases, *other.phases}),
        source_of_traffic=tuple(who for who in From if who in {*one.source_of_traffic, *other.source_of_traffic}),
        needed_for=_both(one.needed_for, other.needed_for),
        without_it=_both(one.without_it, other.without_it),
        source=_both(one.source, other.source),
        required=one.required or other.required,
    )


def _both(one: str, other: str) -> str:
    return one if other in one else f"{one}; {other}"


def _order(one: RequiredHost) -> int:
    return min(list(Phase).index(phase) for phase in one.phases)
