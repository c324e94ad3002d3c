"""The hosts that a declared cluster needs, with the stack's own names as far as they are known."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules import Cluster, cloud_of
from aks_inference.cluster_rules.hosts import Phase, RequiredHost, StackNames, required_hosts
from aks_inference.cluster_rules.kinds import parse_id
from aks_inference.cluster_rules.model import Tls
from aks_inference.values import is_late

if TYPE_CHECKING:
    from aks_inference.service.endpoint import EndpointPlan

DOCKER_HUB = "registry-1.docker.io"
"""Where an image without a registry comes from."""
NO_NAMES = StackNames()


def registry_host(registry_id: str, location: str | None) -> str | None:
    """The login server of a registry's id."""
    parsed = parse_id(registry_id)
    return f"{parsed.name.lower()}.{cloud_of(location).registry}" if parsed else None


def image_host(image: str) -> str:
    """The registry of an image, with a port that it names: what stands before the first slash, where that is a host."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named else DOCKER_HUB


def store_names(store: str) -> StackNames:
    """What the address of a model store names: `az://account/container`, `oci://registry/repository`."""
    parts = urlsplit(store)
    if parts.scheme == "az" and parts.hostname:
        return StackNames(storage_accounts=(parts.hostname,))
    if parts.scheme == "oci" and parts.hostname:
        return StackNames(registries=(_place(parts),))
    return NO_NAMES


def runtime_names(arguments: Mapping[str, Any] | None) -> StackNames:
    """Of the runtime's arguments: its image, its registry, its store of models. What is known later is left out."""
    given = {name: value for name, value in (arguments or {}).items() if not is_late(value)}
    registry = given.get("registry") or {}
    server = registry.get("server") if isinstance(registry, Mapping) else None
    images = [text for text in (given.get("image"), f"{server}/" if isinstance(server, str) else None) if text]
    names = [StackNames(registries=(image_host(str(text)),)) for text in images]
    store = given.get("model_store")
    return joined([*names, *([store_names(store)] if isinstance(store, str) else [])])


def service_names(plans: Iterable["EndpointPlan"]) -> StackNames:
    """Of services: their images, the stores of their models and of what they collect, the issuers of their tokens."""
    return joined(one for plan in plans for one in _of_service(plan))


def _of_service(plan: "EndpointPlan") -> Iterator[StackNames]:
    spec = plan.endpoint.spec
    if spec.token is not None:
        addresses = (spec.token.issuer, spec.token.jwks_uri)
        hosts = tuple(place for address in addresses if address and (place := _place(urlsplit(address))))
        yield StackNames(identity_providers=hosts)
    for one in plan.versions:
        if one.version.container is not None and one.version.container.image:
            yield StackNames(registries=(image_host(one.version.container.image),))
        yield from (store_names(use.store) for use in one.models if use.store)
        if one.version.model_data is not None and one.version.model_data.store is not None:
            yield StackNames(data_accounts=store_names(one.version.model_data.store).storage_accounts)


def _place(address: SplitResult) -> str:
    """The host, with a port that is named."""
    host = address.hostname or ""
    port = address.netloc.rpartition("@")[2].partition(":")[2]
    return f"{host}:{port}" if host and port.isdigit() else host


def joined(several: Iterable[StackNames]) -> StackNames:
    """All lists together, each name once."""
    found = NO_NAMES
    for one in several:
        found = replace(
            found,
            registries=tuple(dict.fromkeys((*found.registries, *one.registries))),
            storage_accounts=tuple(dict.fromkeys((*found.storage_accounts, *one.storage_accounts))),
            data_accounts=tuple(dict.fromkeys((*found.data_accounts, *one.data_accounts))),
            identity_providers=tuple(dict.fromkeys((*found.identity_providers, *one.identity_providers))),
        )
    return found


def hosts_of(
    plan: ClusterPlan, registry_ids: Iterable[Any], api_server: str | None = None, others: StackNames = NO_NAMES
) -> tuple[RequiredHost, ...]:
    """All of them. Ids that are known only later are left out. `others`: lists of what stands on the cluster."""
    location = plan.cluster.location
    known = (registry_host(one, location) for one in registry_ids if isinstance(one, str))
    own = StackNames(registries=tuple(host for host in known if host))
    names = replace(
        joined([own, runtime_names(plan.runtime), others]),
        api_server=api_server,
        scoring_host=plan.spec.ssl_cname,
        dns_servers=plan.network.spec.dns_servers,
        acme=_authority(plan.spec.leaf_domain_label, plan.runtime),
        key_vault=_vault_host(plan.spec.ssl_key_vault_secret_id),
    )
    return required_hosts(plan.cluster, names)


def attached_hosts(
    plan: AttachPlan, location: str, api_server: str | None, others: StackNames = NO_NAMES
) -> tuple[RequiredHost, ...]:
    """Of a cluster that exists; its add-ons are its own business, and not known."""
    names = replace(
        joined([runtime_names(plan.runtime), others]),
        api_server=api_server,
        scoring_host=_scoring_host(plan.runtime),
        acme=_authority(plan.leaf_domain_label, plan.runtime),
        key_vault=_vault_host(plan.ssl_key_vault_secret_id),
    )
    tls = Tls(leaf_domain_label=plan.leaf_domain_label)
    return required_hosts(Cluster(existing=True, location=location, tls=tls), names)


def _scoring_host(runtime: Mapping[str, Any] | None) -> str | None:
    given = (runtime or {}).get("ssl_cname")
    return given if isinstance(given, str) and not is_late(given) else None


def _authority(label: str | None, runtime: Mapping[str, Any] | None) -> str | None:
    """Who issues the certificate of a leaf domain."""
    given = (runtime or {}).get("acme_server")
    return given if label is not None and isinstance(given, str) else None


def _vault_host(secret_id: str | None) -> str | None:
    return urlsplit(secret_id).hostname if secret_id else None


def host_map(hosts: Sequence[RequiredHost]) -> dict[str, str]:
    """`host:port` → when, by whom, and what fails without it."""
    return {
        f"{one.host}:{one.port}": f"{', '.join(one.phases)}; from {', '.join(one.source_of_traffic)}; "
        f"without it: {one.without_it}"
        for one in hosts
    }


def host_line(plan: ClusterPlan) -> str:
    """One line for the preview."""
    hosts = hosts_of(plan, [one for one in plan.spec.registry_ids if not is_late(one)])
    first = Counter(one.phases[0] for one in hosts)
    parts = ", ".join(f"{first[phase]} from {phase} on" for phase in Phase if first[phase])
    return f"required hosts: {len(hosts)} ({parts}); the output @required_hosts and `aks-inference doctor` list them"
