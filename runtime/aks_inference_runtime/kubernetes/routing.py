"""What a router serves, from what the API server shows and what the router owns. Pure but for a memory."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from aks_inference_runtime.api.endpoint import AuthMode, EndpointSpec, EndpointVersion, Protocol
from aks_inference_runtime.api.kubernetes import version_label
from aks_inference_runtime.api.traffic import declared_traffic
from aks_inference_runtime.kubernetes.objects import Declared, ReplicaEndpoint, Slice
from aks_inference_runtime.router.deltas import differing
from aks_inference_runtime.router.model import ControlAddress, EndpointRoute, ReplicaTarget, VersionRoute, token_rules
from aks_inference_runtime.router.ownership import AWAY, Tenure

Key = tuple[str, str, str]
"""Namespace, endpoint and label of a version."""
Replicas = Mapping[Key, tuple[ReplicaEndpoint, ...]]


@dataclass(frozen=True)
class Part:
    """A router's part in an endpoint."""

    owner: str | None
    """None: this router."""
    tenure: Tenure


def replicas_of(slices: Iterable[Slice]) -> Replicas:
    """All replicas by version. One that stands in two slices (it is being moved) is taken once."""
    found: dict[Key, dict[str, ReplicaEndpoint]] = {}
    for piece in slices:
        version = found.setdefault(_key(piece), {})
        version.update({replica.id: replica for replica in piece.replicas})
    return {key: tuple(version.values()) for key, version in found.items()}


def of_version(replicas: Replicas, endpoint: Declared, version: str) -> tuple[ReplicaEndpoint, ...]:
    """The replicas of one version."""
    return replicas.get((endpoint.namespace, endpoint.name, version_label(version)), ())


def ready(replicas: Iterable[ReplicaEndpoint]) -> int:
    """Replicas that the kubelet found ready and that stay."""
    return sum(replica.ready and not replica.terminating for replica in replicas)


def presentable(before: EndpointSpec | None, endpoint: Declared, replicas: Replicas) -> bool:
    """Whether the declared shares can be in force: every version that gets more than before has a ready replica, or is
    scaled to zero. One that gets less, or nothing, may be dead: that is why it is declared so."""
    had = {} if before is None else declared_traffic(before)
    wanted = declared_traffic(endpoint.spec)
    growing = (version for version in endpoint.spec.versions if wanted[version.name] > had.get(version.name, 0))
    return all(_present(version, of_version(replicas, endpoint, version.name)) for version in growing)


def next_spec(before: EndpointSpec | None, endpoint: Declared, replicas: Replicas) -> EndpointSpec:
    """The declaration whose shares are in force.

    The shares that were in force stay until the declared ones can be. A router that has just begun does not know what
    was: then the versions without a replica leave their share to the others.
    """
    if presentable(before, endpoint, replicas):
        return endpoint.spec
    if before is not None:
        names = {v.name for v in endpoint.spec.versions}
        if all(v.name in names or of_version(replicas, endpoint, v.name) for v in before.versions):
            return before
    there = [v for v in endpoint.spec.versions if _present(v, of_version(replicas, endpoint, v.name))]
    return endpoint.spec if not there else _without_absent(endpoint.spec, there)


def route(
    endpoint: Declared, spec: EndpointSpec, replicas: Replicas, digests: frozenset[str], part: Part
) -> EndpointRoute:
    """An endpoint as this router serves it. `spec`: whose shares are in force."""
    traffic = declared_traffic(spec)
    declared = {v.name: v for v in endpoint.spec.versions}
    return EndpointRoute(
        name=endpoint.name,
        auth=endpoint.spec.auth,
        key_digests=digests if endpoint.spec.auth is AuthMode.KEY else frozenset(),
        versions=tuple(
            _version(declared.get(v.name, v), traffic[v.name], of_version(replicas, endpoint, v.name))
            for v in spec.versions
        ),
        version_header_enabled=endpoint.spec.version_header_enabled,
        owner=part.owner,
        tenure=part.tenure,
        token=token_rules(endpoint.spec),
        cors_origins=endpoint.spec.cors_origins,
        retry_lost_requests=endpoint.spec.retry_lost_requests,
        grpc=endpoint.spec.protocol is Protocol.GRPC,
    )


class Bases:
    """What all lanes of a router pod serve alike, worked out once: of many endpoints few change at a time."""

    def __init__(self) -> None:
        self._replicas: dict[Key, tuple[ReplicaEndpoint, ...]] = {}
        self._slices: dict[str, Slice] = {}
        """As they were looked at last."""
        self._of: dict[Key, dict[str, Slice]] = {}
        self._revision: int | None = None
        self._known: dict[str, tuple[object, EndpointRoute]] = {}

    def replicas(self, slices: Mapping[str, Slice], revision: int) -> Replicas:
        """As `replicas_of`; of a version of which nothing changes the same object. `revision`: another one with each
        change of the slices."""
        if revision != self._revision:
            changed = set()
            for name in differing(self._slices, slices):
                before, now = self._slices.get(name), slices.get(name)
                if before is not None and (now is None or _key(now) != _key(before)):
                    del self._of[_key(before)][name]
                if now is not None:
                    self._of.setdefault(_key(now), {})[name] = now
                changed |= {_key(piece) for piece in (before, now) if piece is not None}
            for key in changed:
                self._replicas.pop(key, None)
                self._replicas |= replicas_of(self._of[key].values())
                if not self._of[key]:
                    del self._of[key]
            self._slices, self._revision = dict(slices), revision
        return self._replicas

    def route(
        self, endpoint: Declared, spec: EndpointSpec, replicas: Replicas, digests: frozenset[str]
    ) -> EndpointRoute:
        """As the function `route`, without anybody's part; the same object while nothing of it changes."""
        there = [of_version(replicas, endpoint, version.name) for version in spec.versions]
        given = (endpoint, spec, there, digests)
        known = self._known.get(endpoint.name)
        if known is None or known[0] != given:
            known = self._known[endpoint.name] = (given, route(endpoint, spec, replicas, digests, Part(None, AWAY)))
        return known[1]

    def forget(self, but: Collection[str]) -> None:
        """All endpoints but these."""
        for name in self._known.keys() - set(but):
            del self._known[name]


class Serving(NamedTuple):
    """An endpoint as a lane serves it, and what that was made of."""

    endpoint: Declared
    there: tuple[tuple[Key, tuple[ReplicaEndpoint, ...]], ...]
    """The replicas of all versions that matter."""
    digests: frozenset[str]
    part: Part
    spec: EndpointSpec
    """Whose shares are in force."""
    base: EndpointRoute
    route: EndpointRoute

    def stands(self, endpoint: Declared, replicas: Replicas, digests: frozenset[str], part: Part) -> bool:
        """Whether it is made of the same."""
        same = self.endpoint is endpoint and self.part is part and self.digests == digests
        return same and all(replicas.get(key, ()) is found for key, found in self.there)


class Routes:
    """What one lane serves."""

    def __init__(self, bases: Bases | None = None) -> None:
        """`bases`: Optional. Those of its pod; default: its own."""
        self._bases = bases or Bases()
        self._known: dict[str, Serving] = {}

    def replicas(self, slices: Mapping[str, Slice], revision: int) -> Replicas:
        """See `Bases`."""
        return self._bases.replicas(slices, revision)

    def serve(self, endpoint: Declared, replicas: Replicas, digests: frozenset[str], part: Part) -> Serving:
        """With the shares of `next_spec`; the same route while nothing of it changes."""
        known = self._known.get(endpoint.name)
        if known is not None and known.endpoint.uid != endpoint.uid:
            known = None  # made again under its name: what was in force is none of its business
        if known is not None and known.stands(endpoint, replicas, digests, part):
            return known
        spec = next_spec(known.spec if known is not None else None, endpoint, replicas)
        base = self._bases.route(endpoint, spec, replicas, digests)
        if known is not None and known.base is base and known.part == part:
            found = known.route
        else:
            found = replace(base, owner=part.owner, tenure=part.tenure)
        names = dict.fromkeys(version.name for version in (*endpoint.spec.versions, *spec.versions))
        keys = [(endpoint.namespace, endpoint.name, version_label(name)) for name in names]
        there = tuple((key, replicas.get(key, ())) for key in keys)
        served = self._known[endpoint.name] = Serving(endpoint, there, digests, part, spec, base, found)
        return served

    def as_before(self, name: str, part: Part) -> EndpointRoute | None:
        """An endpoint as it was served last, by whoever owns it now; None: it never was."""
        known = self._known.get(name)
        return None if known is None else replace(known.base, owner=part.owner, tenure=part.tenure)

    def in_force(self, endpoint: Declared) -> bool:
        """Whether what is declared is what is served."""
        known = self._known.get(endpoint.name)
        return known is not None and (known.spec is endpoint.spec or known.spec == endpoint.spec)

    def forget(self, but: Collection[str]) -> None:
        """All endpoints but these."""
        self._bases.forget(but)
        for name in self._known.keys() - set(but):
            del self._known[name]


def _key(piece: Slice) -> Key:
    return piece.namespace, piece.endpoint, piece.version_label


def _version(version: EndpointVersion, traffic: int, replicas: tuple[ReplicaEndpoint, ...]) -> VersionRoute:
    scaling = version.scaling
    return VersionRoute(
        name=version.name,
        traffic=traffic,
        requests=version.requests,
        # Whether a replica takes requests is its gate's word; the kubelet's is older.
        replicas=tuple(
            ReplicaTarget(r.id, r.address, r.port, ControlAddress(r.address, r.control_port), not r.terminating)
            for r in replicas
        ),
        scaled_to_zero=scaling.autoscale_enabled and scaling.autoscale_min_replicas == 0 and not ready(replicas),
    )


def _present(version: EndpointVersion, replicas: tuple[ReplicaEndpoint, ...]) -> bool:
    return ready(replicas) > 0 or (version.scaling.autoscale_enabled and version.scaling.autoscale_min_replicas == 0)


def _without_absent(spec: EndpointSpec, there: list[EndpointVersion]) -> EndpointSpec:
    default = next((v for v in there if v.is_default), max(there, key=lambda v: v.traffic_percentile))
    kept = {v.name for v in there}
    versions = tuple(
        v.model_copy(
            update={
                "is_default": v.name == default.name,
                "traffic_percentile": v.traffic_percentile if v.name in kept else 0.0,
            }
        )
        for v in spec.versions
    )
    return spec.model_copy(update={"versions": versions})
