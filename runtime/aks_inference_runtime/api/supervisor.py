"""What the supervisor of this machine takes and gives (its HTTP API, version 1)."""

import os
from pathlib import Path

from pydantic import Field

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.models import MODEL_NAME, ModelFacts

API_PREFIX = "/v1"
RECORD_VERSION = 1
"""Of the files in a state directory. A newer one is refused, never rewritten."""
OBSERVING_FILE = "observing.json"
"""In a state directory: an ObservingRecord; not there: nobody is told anything."""
DEFAULT_PORT = 8890
"""The example port of Azure ML's documentation for local services."""


def state_root() -> Path:
    """`${XDG_STATE_HOME:-~/.local/state}/aks-inference`: one folder per local cluster."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "aks-inference"


def default_state_directory(name: str) -> Path:
    """Where a local cluster of this name keeps its state unless it is told otherwise."""
    return state_root() / name


class LocalSettings(Wire):
    """One local cluster."""

    name: str
    state_directory: str
    """Absolute."""
    port: int = Field(DEFAULT_PORT, ge=1, le=65_535)
    """Of the router, on 127.0.0.1."""
    haproxy: str | None = None
    """Path of another HAProxy binary (2.8 or newer)."""


class Observing(Wire):
    """Who is told what goes on in a local cluster; by default nobody. Can be changed while it runs."""

    state_webhook: str | None = Field(None, repr=False)
    """Secret. Where each changed state of an endpoint is told to."""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector of the requests' traces; None: nothing is traced."""
    trace_ratio: float = Field(0.1, ge=0, le=1)
    """Of the requests whose caller does not decide it."""
    access_log: bool = False
    """Whether gates write a line for each request into their replica's log."""
    metrics_port: int | None = Field(None, ge=1, le=65_535)
    """On 127.0.0.1: `/metrics`; None: nowhere."""


class SupervisorInfo(Wire):
    """The supervisor that answers."""

    name: str
    pid: int
    started: float
    """Seconds since the epoch."""
    version: str
    url: str
    """Of the router: `http://127.0.0.1:<port>`."""
    port: int
    state_directory: str
    socket: str
    haproxy: str | None = None


class SupervisorRecord(Wire):
    """`supervisor.json`: how to reach the supervisor, and how to start it again."""

    record_version: int = RECORD_VERSION
    settings: LocalSettings
    run_directory: str
    """Short (socket paths end at 108 bytes), 0700; holds the sockets."""
    pid: int = 0
    process_mark: str = ""
    """Tells the process from a later one of the same pid (api.process)."""
    started: float = 0
    version: str = ""

    @property
    def socket(self) -> Path:
        """The API's socket."""
        return Path(self.run_directory) / "api.sock"


class ModelRegistration(ModelFacts):
    """Files to store under a name."""

    name: str = Field(pattern=MODEL_NAME)
    source_path: str
    """Absolute path of a file or folder."""
    child_paths: tuple[str, ...] = ()
    """Of a folder: only these files or folders of it."""


class ObservingRecord(Observing):
    """`observing.json`. The webhook's address stands in a file of its own."""

    record_version: int = RECORD_VERSION


class EndpointSubmission(Wire):
    """An endpoint with its keys. Without keys the present ones stay; at first they are generated."""

    endpoint: ScoringEndpoint
    primary_key: str | None = Field(None, min_length=1, repr=False)
    secondary_key: str | None = Field(None, min_length=1, repr=False)


class EndpointKeys(Wire):
    """Both keys of an endpoint; each is accepted."""

    primary_key: str = Field(repr=False)
    secondary_key: str = Field(repr=False)


class Problem(Wire):
    """An error on the wire: the class of api.errors and its text."""

    error: str
    message: str
