"""What the versions of an endpoint share, and the plan of a whole endpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from aks_inference.findings import NOTHING, Finding
from aks_inference.images.pod_image import GIVEN, PodImage
from aks_inference.names import NAMESPACE
from aks_inference.service.cors import origin_findings
from aks_inference.service.insights import InsightsSettings, insights_findings, shown_to_engine
from aks_inference.service.models import ModelUse
from aks_inference.service.placing import PLACING, Placing
from aks_inference.service.tokens import TokenSettings, token_auth, token_findings
from aks_inference.targets import TargetChoice
from aks_inference.values import Flag, Leaf, Read, Spec, Text, Texts, Whole, is_late
from aks_inference_runtime.api.endpoint import AuthMode, EndpointSpec, EndpointVersion, Metadata, ScoringEndpoint
from aks_inference_runtime.api.keys import SAME_KEYS, key_problem
from aks_inference_runtime.api.traffic import Share, effective_traffic

LATER = "is not supported on the local target yet"
ONLY_CLUSTER = "is only for a Kubernetes target"


class EndpointSettings(TokenSettings, InsightsSettings):
    """Settings of an endpoint, whatever its versions."""

    target: Any = None
    auth_enabled: Flag | None = None
    token_auth_enabled: Flag = False
    primary_key: Leaf | None = None
    secondary_key: Leaf | None = None
    namespace: Text | None = None
    compute_target_name: Text | None = None
    version_header_enabled: Flag = True
    cors_origins: Texts = ()
    retry_lost_requests: Flag | None = None
    port: Annotated[Whole, Field(ge=1, le=65_535)] | None = Field(None, description="use a port from 1 to 65,535")
    key_version: Annotated[Whole, Field(ge=1)] | None = Field(None, description="use 1 or more")


@dataclass(frozen=True)
class VersionPlan:
    """One version that will run; what is known only later stands beside it."""

    version: EndpointVersion
    models: tuple[ModelUse, ...] = ()
    late_variables: Mapping[str, Any] = field(default_factory=dict)
    late: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the version that are known only later, or hold such values."""
    notes: tuple[str, ...] = ()
    placing: Placing = PLACING
    """On a cluster."""
    image: PodImage = GIVEN
    """On a cluster."""


@dataclass(frozen=True)
class EndpointPlan:
    """An endpoint that will run."""

    name: str
    target: TargetChoice
    endpoint: ScoringEndpoint
    versions: tuple[VersionPlan, ...]
    late: Mapping[str, Any]
    """Fields of the endpoint that are known only later, or hold such values."""
    primary_key: Any = None
    secondary_key: Any = None
    notes: tuple[str, ...] = ()
    key_version: int | None = None

    @property
    def traffic(self) -> dict[str, float]:
        """Effective percent by version."""
        shares = [Share(v.name, v.traffic_percentile, v.is_default) for v in self.endpoint.spec.versions]
        return {name: hundredths / 100 for name, hundredths in effective_traffic(shares).items()}

    def wire(self) -> dict[str, Any]:
        """The ScoringEndpoint as JSON, with what is known only later as outputs in their places."""
        wire: Any = self.endpoint.to_wire()
        wire["spec"].update(self.late)
        for version, plan in zip(wire["spec"]["versions"], self.versions, strict=True):
            version["models"] = [use.reference for use in plan.models]
            version["environment"]["environmentVariables"].update(
                {name: shown_to_engine(value) for name, value in plan.late_variables.items()}
            )
            version.update(plan.late)
        result: dict[str, Any] = wire
        return result


def auth_mode(settings: EndpointSettings) -> AuthMode:
    """Key unless said otherwise; a token asked for alone replaces the key, as the documents' examples mean it."""
    if settings.token_auth_enabled:
        return AuthMode.TOKEN
    return AuthMode.NONE if settings.auth_enabled is False else AuthMode.KEY


def endpoint_rules(read: Read[Any], target: TargetChoice | None) -> Iterator[Finding]:
    """The rules between the settings of an endpoint."""
    settings: EndpointSettings = read.spec
    on_cluster = target is not None and target.on_cluster
    if read.whole("auth_enabled", "token_auth_enabled"):
        yield from _auth(settings)
        if not (settings.auth_enabled and settings.token_auth_enabled):
            yield from token_findings(read, asked=settings.token_auth_enabled, target=target)
    if settings.namespace is not None:
        yield from NAMESPACE.check(("namespace",), settings.namespace)
    yield from insights_findings(read)
    yield from origin_findings(settings.cors_origins)
    if settings.retry_lost_requests is not None and target is not None and not on_cluster:
        mend = "leave it out: one router is no other's second try"
        yield Finding(("retry_lost_requests",), ONLY_CLUSTER, mend, settings.retry_lost_requests)
    if settings.port is not None and on_cluster:
        yield Finding(("port",), "is only for the local target", "leave it out", settings.port)
    if settings.key_version is not None and not on_cluster:
        mend = "leave it out; to change a key give the new one as @primary_key"
        yield Finding(("key_version",), ONLY_CLUSTER, mend, settings.key_version)
    elif settings.key_version is not None and auth_mode(settings) is not AuthMode.KEY:
        yield Finding(("key_version",), "has no use: keys are switched off", "leave it out", settings.key_version)
    if target is not None and target.name is not None and settings.compute_target_name not in (None, target.name):
        rule = f"names another cluster than @target ({target.name})"
        yield Finding(("compute_target_name",), rule, "leave it out: @target decides", settings.compute_target_name)
    if settings.port is not None and target is not None and settings.port == target.port:
        rule = "is the port of the cluster itself"
        yield Finding(("port",), rule, "choose another port, or leave it out", settings.port)
    if settings.port is not None and target is not None and settings.port == target.metrics_port:
        rule = "is the port of the cluster's metrics"
        yield Finding(("port",), rule, "choose another port, or leave it out", settings.port)


def _auth(settings: EndpointSettings) -> Iterator[Finding]:
    if settings.auth_enabled and settings.token_auth_enabled:
        rule = "cannot be combined with @auth_enabled true"
        yield Finding(("token_auth_enabled",), rule, "choose keys or tokens", value=True)
    keys = {"primary_key": settings.primary_key, "secondary_key": settings.secondary_key}
    for name, key in keys.items():
        if key is not None and not is_late(key) and (problem := key_problem(key)):
            yield Finding((name,), *problem, NOTHING)
        elif key is not None and auth_mode(settings) is not AuthMode.KEY:
            yield Finding((name,), "has no use: keys are switched off", "leave it out, or leave out @auth_enabled")
    if settings.secondary_key is not None and settings.primary_key is None:
        yield Finding(("secondary_key",), "is given without @primary_key", "give both, or neither")
    elif isinstance(settings.secondary_key, str) and settings.secondary_key == settings.primary_key:
        yield Finding(("secondary_key",), *SAME_KEYS, NOTHING)


def late_fields(spec: Spec, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain ones of these fields, and those that hold something known only later."""
    plain: dict[str, Any] = {}
    late: dict[str, Any] = {}
    for name in names:
        value = getattr(spec, name)
        inside = value.values() if isinstance(value, Mapping) else [value]
        (late if any(is_late(item) for item in inside) else plain)[name] = value
    return plain, late


def endpoint_fields(settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - of either component
    """What describes the endpoint, and what of the endpoint is known only later."""
    plain, late = late_fields(settings, ("description", "tags"))
    if auth_mode(settings) is AuthMode.TOKEN and (token := token_auth(settings)[1]):
        late["token"] = token
    return plain, late


def build_endpoint(
    name: str, settings: EndpointSettings, versions: Sequence[VersionPlan], shared: Mapping[str, Any]
) -> ScoringEndpoint:
    """The object. `shared`: description, tags and properties as far as they are known."""
    mode = auth_mode(settings)
    return ScoringEndpoint(
        metadata=Metadata(name=name, namespace=settings.namespace or "default"),
        spec=EndpointSpec(
            auth=mode,
            token=token_auth(settings)[0] if mode is AuthMode.TOKEN else None,
            version_header_enabled=settings.version_header_enabled,
            cors_origins=settings.cors_origins,
            retry_lost_requests=settings.retry_lost_requests is not False,
            port=settings.port,
            versions=tuple(plan.version for plan in versions),
            **{key: value for key, value in shared.items() if value is not None},
        ),
    )
