"""What a gate is told and what it reports."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.router.gate.address import Address

MAX_BODY_BYTES = 100_000_000
"""Azure ML's limit of a request body at the router, 100 MB, read so that 101 MB are too many whatever a megabyte is."""


class Reported(Wire):
    """Whom a gate tells of each request."""

    access_log: bool = False
    """A line of JSON on standard output for each request."""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector (OTLP over HTTP): `http://collector:4318`; None: nothing is traced."""
    trace_ratio: float = Field(1.0, ge=0, le=1)
    """Of the requests whose caller did not decide it."""


class GateSettings(Reported):
    """Settings of one gate, as the JSON file that its process is started with."""

    replica_id: str
    version: str
    """Name of the endpoint's version: the header `x-aks-inference-version` of every answer."""
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(0, ge=0, le=65_535)
    """0: any free port; the actual one stands in the status."""
    listen_path: Path | None = None
    """A Unix socket in place of the port."""
    upstream_host: str = "127.0.0.1"
    upstream_port: int | None = Field(None, ge=1, le=65_535)
    upstream_path: Path | None = None
    """The replica: its Unix socket or its port, one of them."""
    protocol: Literal["http", "grpc"] = "http"
    """What the replica speaks: HTTP/1.1, or gRPC (HTTP/2 in clear by prior knowledge), whose calls have own paths."""
    score_path: str = "/score"
    swagger_path: str = "/swagger.json"
    health_path: str = "/"
    health_port: int | None = Field(None, ge=1, le=65_535)
    """None: the upstream's port or path."""
    health_protocol: Literal["http", "grpc"] = "http"
    """`grpc`: by gRPC's health checking protocol; a server without it is ready once it answers any call."""
    max_concurrent: int = Field(1, ge=1)
    """Requests at once at the replica (replica_max_concurrent_requests)."""
    scoring_timeout_ms: int = Field(60_000, ge=1)
    queue_timeout_ms: int = Field(500, ge=1)
    """How long a request may wait at the gate (max_request_wait_time); it waits here only in races."""
    hung_after_ms: int | None = Field(None, ge=1)
    """So long beyond its scoring timeout a request may be without a sign of the replica; beyond that the replica counts
    as hung. None: never."""
    max_body_bytes: int = Field(MAX_BODY_BYTES, ge=0)
    client_timeout_ms: int = Field(10_000, ge=1)
    """How long a client may pause in the middle of a body; then 408."""
    reader_timeout_ms: int = Field(30_000, ge=1)
    """How long an answer may wait for its reader: at once, and in all beyond what 50 kB/s allow. Then it is cut."""
    endpoint: str = ""
    """Of the version: for metrics and the access log."""
    control: Path
    """Path of the control socket (at most 100 bytes)."""

    @model_validator(mode="after")
    def _one_upstream(self) -> Self:
        if (self.upstream_port is None) == (self.upstream_path is None):
            raise ValueError("give one of upstreamPort and upstreamPath")
        return self

    @property
    def reported(self) -> Reported:
        """Whom it tells from its start on."""
        return Reported(access_log=self.access_log, otlp_endpoint=self.otlp_endpoint, trace_ratio=self.trace_ratio)

    @property
    def listen(self) -> Address:
        """Of the data listener."""
        return Address(self.listen_path, self.listen_host, self.listen_port)

    @property
    def upstream(self) -> Address:
        """Of the replica."""
        return Address(self.upstream_path, self.upstream_host, self.upstream_port or 0)

    @property
    def health(self) -> Address:
        """Where the replica is asked for its health."""
        return self.upstream if self.health_port is None else Address(None, self.upstream_host, self.health_port)


class GateStatus(Wire):
    """What goes on at a gate now."""

    replica_id: str
    port: int
    """Of the data listener; 0: it has a path."""
    ready: bool
    """The health path answered 200 since the replica began, and it still accepts connections."""
    max_concurrent: int
    running: int
    """Requests at the replica, those whose client or deadline is gone included."""
    orphans: int
    """Requests at the replica whose connection to the router is gone or was answered."""
    waiting: int
    """Requests that wait at the gate for a slot."""
    hung: bool = False
    """All requests at the replica have been without a sign of it for longer than `hungAfterMs` allows."""
    served_total: int
    """Requests that the replica has finished, or has lost."""
    seq: int = 0
    """Grows with every change of `ready`, `orphans` or the claim; watchers acknowledge it."""
    epoch: int = 0
    owner: str = ""
    """The claim that holds (ownership.Epoch): where several routers share a replica, who may send to it."""


class HistogramFigures(Wire):
    """What was observed."""

    counts: tuple[int, ...]
    """By bucket (`telemetry.BOUNDS_S`, and what is above them all)."""
    sum: float


class GateFigures(Wire):
    """What a gate counted since it began."""

    answers: tuple[tuple[int, str, int], ...]
    """Status, reason (empty: the model's own status), how often."""
    served: HistogramFigures
    """Seconds from the moment that the replica has the request until its last byte."""
    waited: HistogramFigures
    """Seconds in the router's queue, of what reached the replica."""
    lines_lost: int
    """Of the access log."""
