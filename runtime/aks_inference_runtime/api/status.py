"""What runs, as it is reported: the five Azure ML states and the figures of each version."""

from enum import StrEnum

from pydantic import Field

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.models import ModelFacts

LONGEST_MESSAGE = 32_768
"""Characters of a message in a ScoringEndpoint's status: the API server refuses a status with a longer one."""


class ServiceState(StrEnum):
    """Azure ML's states of a service."""

    TRANSITIONING = "Transitioning"
    UNHEALTHY = "Unhealthy"
    UNSCHEDULABLE = "Unschedulable"
    FAILED = "Failed"
    HEALTHY = "Healthy"

    @property
    def final(self) -> bool:
        """Whether the state stays until something is declared anew."""
        return self in (ServiceState.FAILED, ServiceState.HEALTHY)


class ReplicaState(StrEnum):
    """The life of a replica."""

    STARTING = "Starting"
    READY = "Ready"
    UNREADY = "Unready"
    DRAINING = "Draining"
    BACK_OFF = "BackOff"


class ReplicaStatus(Wire):
    """One replica."""

    id: str
    state: ReplicaState
    restarts: int = 0
    address: str = ""
    reason: str = ""


class VersionStatus(Wire):
    """One version: replicas, load, traffic, and why the autoscaler did what it did last."""

    name: str
    state: ServiceState
    traffic: float = 0
    """Percent by the declaration, the default's with what none has."""
    replicas_desired: int = 0
    replicas_ready: int = 0
    # A figure that is left out, on a cluster, is not known, which is not zero.
    busy: int | None = None
    queued: int | None = None
    utilization: float | None = None
    """Percent: (busy + queued) / (ready × replicaMaxConcurrentRequests)."""
    last_scaling: str = ""
    message: str = ""
    """Why it is not healthy; for Failed the tail of the log."""
    replicas: tuple[ReplicaStatus, ...] = ()


class EndpointStatus(Wire):
    """An endpoint as it runs."""

    name: str
    state: ServiceState
    generation: int
    """Counts the declared changes."""
    observed_generation: int = 0
    """The newest generation that is served whole."""
    scoring_uri: str = ""
    swagger_uri: str = ""
    message: str = ""
    versions: tuple[VersionStatus, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """See `Wire`; figures that are not known are null, for who reads them by name."""
        return super().to_wire() | {"versions": [one.model_dump(mode="json", by_alias=True) for one in self.versions]}


class EndpointView(Wire):
    """What is declared and how it is."""

    endpoint: ScoringEndpoint
    status: EndpointStatus


class ModelRecord(ModelFacts):
    """A model version in a store."""

    name: str
    version: int
    digest: str
    """`sha256:<hex>` over names and contents."""
    files: dict[str, str] = Field(default_factory=dict)
    """Relative path in the model → `sha256:<hex>`."""
    file_sizes: dict[str, int] = Field(default_factory=dict)
    """Relative path in the model → bytes."""
    size_bytes: int = 0
    created_time: str = ""

    @property
    def model_id(self) -> str:
        """`name:version`."""
        return f"{self.name}:{self.version}"
