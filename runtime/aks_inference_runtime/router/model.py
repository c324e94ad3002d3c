"""What the router is told and what it reports; where it runs is not its business."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aks_inference_runtime.api.certificates import Certificate
from aks_inference_runtime.api.endpoint import AuthMode, EndpointSpec, Requests
from aks_inference_runtime.router.ownership import Tenure

if TYPE_CHECKING:
    from aks_inference_runtime.router.answers import AnswerKey


class VersionKey(NamedTuple):
    """A version of an endpoint."""

    endpoint: str
    version: str


class ControlAddress(NamedTuple):
    """A gate's control on another machine."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ReplicaTarget:
    """A replica, reached through its gate."""

    id: str
    """Unique for ever: a restarted replica has a new id."""
    host: str
    port: int
    """Of the gate's data listener, where it has no path."""
    control: "Path | ControlAddress | None"
    """Of the gate's control; None: no gate (measurements only), the cap is then HAProxy's alone."""
    ready: bool = True
    """False: takes no new request; those in flight go on."""
    path: Path | None = None
    """The Unix socket of the gate's data listener."""

    @property
    def address(self) -> str:
        """Of the data listener: a path, or host and port."""
        if self.path is not None:
            return str(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class VersionRoute:
    """A version's part of the traffic and its replicas."""

    name: str
    traffic: int
    """Effective share in hundredths of a percent; all of an endpoint add up to 10,000."""
    requests: Requests
    replicas: tuple[ReplicaTarget, ...] = ()
    scaled_to_zero: bool = False
    """Requests then wait up to cold_start_timeout_ms."""


@dataclass(frozen=True)
class TokenRules:
    """Which tokens open an endpoint."""

    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str | None = None
    """Where the issuer's keys are; None: as its `.well-known/openid-configuration` says."""
    skew_s: float = 60.0
    """How far the clocks of issuer and router may differ."""


def token_rules(spec: EndpointSpec) -> TokenRules | None:
    """Of a declaration; None where it asks for no tokens."""
    if spec.auth is not AuthMode.TOKEN or spec.token is None:
        return None
    return TokenRules(spec.token.issuer, spec.token.audiences, spec.token.jwks_uri)


@dataclass(frozen=True)
class EndpointRoute:
    """An endpoint as the router serves it at /api/v1/service/<name>/score (and /swagger.json beside it)."""

    name: str
    auth: AuthMode
    key_digests: frozenset[str]
    """SHA-256 hex digests of the accepted keys; the keys themselves never reach the router."""
    versions: tuple[VersionRoute, ...]
    version_header_enabled: bool = True
    port: int | None = None
    """Also served at /score and /swagger.json of this port."""
    owner: str | None = None
    """The router (`RouterState.peers`) that new requests go to; None: this one."""
    tenure: Tenure | None = None
    """What this router may do with the replicas; None: it is the only one."""
    token: TokenRules | None = None
    """With `AuthMode.TOKEN`."""
    cors_origins: tuple[str, ...] = ()
    """Whose pages may call it from a browser, each as `https://host[:port]`."""
    retry_lost_requests: bool = True
    """Whether requests that died with an owner (among several routers; once), or with a gate, are sent again."""
    grpc: bool = False
    """Whether its replicas speak gRPC; calls name it (see `calls`), and are never sent again."""


@dataclass(frozen=True)
class Peer:
    """Another router."""

    host: str
    port: int
    """Of its listener for requests that other routers pass on."""
    alive: bool = True
    """False: nothing is sent to it any more."""
    idle: bool = False
    """It leaves and holds nothing."""


@dataclass(frozen=True)
class RouterState:
    """All that is served; applied as a whole, again and again."""

    endpoints: Mapping[str, EndpointRoute] = field(default_factory=dict)
    peers: Mapping[str, "Peer"] = field(default_factory=dict)
    """The other routers, by name."""
    certificate: Certificate | None = None
    """Where it speaks TLS: for new connections; None: the one before."""
    solvers: tuple[tuple[str, int], ...] = ()
    """Host and port of what answers a certificate authority's challenges."""


@dataclass(frozen=True)
class VersionLoad:
    """What is going on at a version now, and since the router began."""

    busy: int = 0
    """Requests at replicas, those whose client or deadline is gone included (as the gates count)."""
    queued: int = 0
    ready_replicas: int = 0
    requests_total: int = 0
    rejected_total: int = 0
    """429 and 503 by the router."""


class Router(Protocol):
    """One router instance on this host."""

    @property
    def answers(self) -> Mapping["AnswerKey", int]:
        """How often it answered by itself, since its agent began."""

    async def start(self) -> None:
        """Starts the data plane, or takes over the one that already runs in the same directory."""

    async def apply(self, state: RouterState) -> None:
        """Serves this and nothing else; fails no request that is under way."""

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        """The newest figures; a version that could not be observed is missing (never zero)."""

    def problems(self) -> Mapping[str, str]:
        """What keeps an endpoint from being served as declared, by name; the others are not touched by it."""

    async def drained(self, replica_id: str, timeout_s: float) -> bool:
        """Waits until a replica that is not ready any more has no request in flight; False at the deadline."""

    async def detach(self) -> None:
        """Lets go: the data plane goes on serving."""

    async def stop(self) -> None:
        """Ends the data plane and removes its files."""
