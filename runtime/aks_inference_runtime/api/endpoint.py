"""ScoringEndpoint (group aks-inference.dev, version v1): what is declared, as it goes to what runs it.

A ModelWebService is an endpoint of one version; a ControlledRolloutEndpoint has up to six. Parameter names, units and
defaults are Azure ML's (reference: azureml-core 1.61, AksWebservice.deploy_configuration), in camelCase on the wire.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aks_inference_runtime.api.base import Wire

GROUP = "aks-inference.dev"
API_VERSION = f"{GROUP}/v1"
KIND = "ScoringEndpoint"
MAX_VERSIONS = 6
"""Versions of one endpoint: the documented limit of Azure ML's AksEndpoint."""
LONGEST_MS = 1_036_800_000
"""12 days. HAProxy's timers end at 2^31 - 1 ms, and one of them holds a wait and a score together."""
LONGEST_S = LONGEST_MS // 1_000
MOST = 2**31 - 1
"""Of what is counted: Kubernetes' replicas and probes have 32 bits."""
MOST_QUEUED = 10_000
"""Waiting requests, of all versions whose queues are in one process of a router: it has connections and memory for a
half more (`router/rooms.py`). What was declared before is read, whatever it is: the router refuses beyond."""

ORIGIN = r"^https?://([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$"
"""RFC 6454 6.2, in lower case as browsers write it."""
MAX_ORIGINS = 100


class AuthMode(StrEnum):
    """How a request proves who sends it."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 - the name of a mode
    NONE = "none"


class Protocol(StrEnum):
    """What replicas speak."""

    HTTP = "http"
    GRPC = "grpc"


class VersionType(StrEnum):
    """A version's part in an experiment; at most one control."""

    CONTROL = "Control"
    TREATMENT = "Treatment"


class Resources(Wire):
    """What one replica asks for (requests) and may use at most (limits)."""

    cpu_cores: float = Field(0.1, gt=0)
    cpu_cores_limit: float | None = Field(None, gt=0)
    memory_gb: float = Field(0.5, gt=0)
    memory_gb_limit: float | None = Field(None, gt=0)
    gpu_cores: int = Field(0, ge=0)


class Scaling(Wire):
    """How many replicas: a fixed number, or between a minimum and a maximum by utilization."""

    autoscale_enabled: bool = True
    num_replicas: int | None = Field(None, gt=0)
    autoscale_min_replicas: int = Field(1, ge=0)
    autoscale_max_replicas: int = Field(10, gt=0)
    autoscale_refresh_seconds: float = Field(1, gt=0)
    autoscale_target_utilization: float = Field(70, gt=0, le=100)
    """Percent."""
    autoscale_scale_down_delay_seconds: float = Field(60, ge=0)
    """Ours: how long the need must have been lower before replicas go (Azure ML: about a minute, fixed)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Scaling":
        if self.autoscale_enabled and self.autoscale_min_replicas > self.autoscale_max_replicas:
            raise ValueError(
                f"autoscaleMinReplicas {self.autoscale_min_replicas} is above "
                f"autoscaleMaxReplicas {self.autoscale_max_replicas}"
            )
        if not self.autoscale_enabled and self.num_replicas is None:
            raise ValueError("numReplicas is required when autoscaleEnabled is false")
        return self


class Requests(Wire):
    """How requests are admitted, queued and given up."""

    scoring_timeout_ms: int = Field(60_000, gt=0)
    replica_max_concurrent_requests: int = Field(1, gt=0)
    max_request_wait_time: int = Field(500, gt=0)
    """Milliseconds in the queue; then 503 `queue-timeout`."""
    max_queued_requests: int = Field(1_000, ge=0)
    """Ours: waiting requests of one version; beyond it 429 `queue-full`."""
    cold_start_timeout_ms: int = Field(60_000, gt=0)
    """Ours: how long requests wait for the first replica of a version scaled to zero."""


class Probe(Wire):
    """Liveness of a replica, with Azure ML's defaults; readiness is the gate's."""

    period_seconds: int = Field(10, gt=0)
    initial_delay_seconds: int = Field(310, gt=0)
    timeout_seconds: int = Field(2, gt=0)
    success_threshold: int = Field(1, gt=0)
    failure_threshold: int = Field(3, gt=0)


class ModelReference(Wire):
    """A registered model of a version, by name and version."""

    name: str
    version: int = Field(gt=0)
    store: str | None = None
    """Address of the store that keeps it; None: that of the target."""


class Code(Wire):
    """The entry script and the directory that it comes from."""

    source_directory: str | None = None
    """Absolute path on the machine that applies; None: only the entry script, which is then an absolute path."""
    entry_script: str
    """Relative to the source directory where there is one, with forward slashes."""
    digest: str
    """`sha256:<hex>` over the relative names and contents of all files: a changed script is a changed endpoint."""


class Environment(Wire):
    """The Python environment of the scoring server. Its identity is its content: name and order do not count."""

    name: str | None = None
    pip_packages: tuple[str, ...] = ()
    """Requirement specifiers, as in a pip requirements file. The scoring server is added where it is missing."""
    environment_variables: dict[str, str] = Field(default_factory=dict)


class Container(Wire):
    """Kubernetes only: the image that a replica runs and where it answers; the local target runs processes."""

    image: str = Field(min_length=1)
    """A reference with tag or digest; it has the packages of the environment."""
    port: int = Field(5001, ge=1, le=65_535)
    protocol: Protocol = Protocol.HTTP
    """With `grpc` calls have their own paths, and `scorePath` and `swaggerPath` mean nothing."""
    score_path: str = "/score"
    swagger_path: str = "/swagger.json"
    health_path: str = "/"
    health_port: int | None = Field(None, ge=1, le=65_535)
    """None: the same port."""
    health_protocol: Protocol = Protocol.HTTP
    """`grpc`: by gRPC's health checking protocol, in place of `healthPath`."""


class ModelData(Wire):
    """What scripts hand to `azureml.monitoring` is collected as CSV files."""

    store: str | None = None
    """A folder of this machine (local target) or `az://account/container[/prefix]` (Kubernetes). None: nothing is
    collected, the scripts' calls do nothing."""
    workspace: str = "default/default/default"
    """`<subscription>/<group>/<workspace>`: the first folders of the layout."""


class EndpointVersion(Wire):
    """One version of an endpoint: what it runs, how much of the traffic it gets, how it is scaled."""

    name: str
    traffic_percentile: float = Field(0, ge=0, le=100)
    """Percent with up to two decimals; what no version has goes to the default, on top of its own."""
    is_default: bool = False
    type: VersionType | None = None
    models: tuple[ModelReference, ...] = ()
    code: Code
    environment: Environment = Environment()
    container: Container | None = None
    pod_template: str | None = None
    """Kubernetes only: a digest of what its pods are made from, of which most stands nowhere else here. A changed pod
    is a changed endpoint, which is served once such pods are ready."""
    resources: Resources = Resources()
    scaling: Scaling = Scaling()
    requests: Requests = Requests()
    liveness_probe: Probe = Probe()
    model_data: ModelData | None = None
    """None: no script asks for it."""
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    description: str | None = None


class Metadata(Wire):
    """Name and labels, as in Kubernetes."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TokenAuth(Wire):
    """With `auth: token`: whose tokens (JWT) are accepted. Entra ID or any OpenID Connect issuer."""

    issuer: str = Field(min_length=1)
    """As the claim `iss` has it."""
    audiences: tuple[str, ...] = Field(min_length=1)
    """One of them must stand in the claim `aud`."""
    jwks_uri: str | None = None
    """Where the issuer's keys are; None: as its `.well-known/openid-configuration` says."""


class EndpointSpec(Wire):
    """What an endpoint shares among its versions."""

    description: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    auth: AuthMode = AuthMode.KEY
    token: TokenAuth | None = None
    """Needed with `auth: token`."""
    version_header_enabled: bool = True
    """Whether a request may ask for a version with the header `x-aks-inference-version`."""
    cors_origins: tuple[Annotated[str, Field(pattern=ORIGIN)], ...] = Field((), max_length=MAX_ORIGINS)
    """Whose pages may call it from a browser: `https://host[:port]`, exactly as browsers send it."""
    retry_lost_requests: bool = True
    """Kubernetes only: a request that died with its router (once), or with a gate, before a byte of the answer is sent
    again; a model may then have run it twice."""
    port: int | None = Field(None, ge=1, le=65_535)
    """Local target only: also served at `http://127.0.0.1:<port>/score`."""
    versions: tuple[EndpointVersion, ...] = Field(min_length=1, max_length=MAX_VERSIONS)

    @model_validator(mode="after")
    def _consistent(self) -> "EndpointSpec":
        names = [v.name for v in self.versions]
        if len(set(names)) != len(names):
            raise ValueError(f"version names must be unique: {', '.join(names)}")
        if sum(v.is_default for v in self.versions) != 1:
            raise ValueError("exactly one version must be the default")
        if sum(v.type is VersionType.CONTROL for v in self.versions) > 1:
            raise ValueError("at most one version may be the control")
        total = sum(v.traffic_percentile for v in self.versions)
        if total > 100.0 + 1e-9:
            raise ValueError(f"traffic percentiles sum to {total:g}; at most 100")
        if len({_protocol(v) for v in self.versions}) > 1:
            raise ValueError("all versions must speak the same protocol")
        return self

    @property
    def protocol(self) -> Protocol:
        """What all versions speak."""
        return _protocol(self.versions[0])


def _protocol(version: EndpointVersion) -> Protocol:
    return Protocol.HTTP if version.container is None else version.container.protocol


class ScoringEndpoint(Wire):
    """The object. Keys never stand in it: they travel beside it."""

    api_version: Literal["aks-inference.dev/v1"] = "aks-inference.dev/v1"
    kind: Literal["ScoringEndpoint"] = "ScoringEndpoint"
    metadata: Metadata
    spec: EndpointSpec
