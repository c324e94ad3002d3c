"""What a gate is told and what it reports."""

from pathlib import Path

from pydantic import Field

from aks_inference_runtime.api.base import Wire

MAX_BODY_BYTES = 100 * 1024 * 1024
"""Azure ML's limit of a request body at the router."""


class GateSettings(Wire):
    """Settings of one gate, as the JSON file that its process is started with."""

    replica_id: str
    version: str
    """Name of the endpoint's version: the header `x-aks-inference-version` of every answer."""
    listen_host: str = "127.0.0.1"
    listen_port: int = Field(0, ge=0, le=65_535)
    """0: any free port; the actual one stands in the status."""
    upstream_host: str = "127.0.0.1"
    upstream_port: int = Field(ge=1, le=65_535)
    score_path: str = "/score"
    swagger_path: str = "/swagger.json"
    health_path: str = "/"
    health_port: int | None = Field(None, ge=1, le=65_535)
    """None: the upstream's port."""
    max_concurrent: int = Field(1, ge=1)
    """Requests at once at the replica (replica_max_concurrent_requests)."""
    scoring_timeout_ms: int = Field(60_000, ge=1)
    queue_timeout_ms: int = Field(500, ge=1)
    """How long a request may wait at the gate (max_request_wait_time); it waits here only in races."""
    max_body_bytes: int = Field(MAX_BODY_BYTES, ge=0)
    client_timeout_ms: int = Field(10_000, ge=1)
    """How long a client may pause in the middle of a body; then 408."""
    control: Path
    """Path of the control socket (at most 100 bytes)."""


class GateStatus(Wire):
    """What goes on at a gate now."""

    replica_id: str
    port: int
    """Of the data listener."""
    ready: bool
    """The health path answered 200 since the replica began, and its port still accepts connections."""
    max_concurrent: int
    running: int
    """Requests at the replica, those whose client or deadline is gone included."""
    orphans: int
    """Requests at the replica whose connection to the router is gone or was answered."""
    waiting: int
    """Requests that wait at the gate for a slot."""
    served_total: int
    """Requests that the replica has finished."""
    seq: int = 0
    """Grows with every change of `ready` or `orphans`; watchers acknowledge it."""
