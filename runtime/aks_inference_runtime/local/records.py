"""What the supervisor keeps on disk."""

from pathlib import Path

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.supervisor import RECORD_VERSION, EndpointKeys

STATE_FOLDERS = ("models", "stores", "code", "endpoints", "keys", "replicas", "apps", "logs")
STATE_FILES = ("supervisor.log", "supervisor.log.1", "supervisor.lock", "supervisor.json")


class EndpointRecord(Wire):
    """`endpoints/<name>.json`: what is declared, and what is served meanwhile."""

    record_version: int = RECORD_VERSION
    endpoint: ScoringEndpoint
    generation: int
    observed_generation: int = 0
    served: ScoringEndpoint | None = None
    """The last one that was served whole; it stays in force until the declared one is."""
    deleting: bool = False


class KeysRecord(EndpointKeys):
    """`keys/<name>.json`."""

    record_version: int = RECORD_VERSION


class ReplicaRecord(Wire):
    """`replicas/<id>.json`: enough to find a running replica again. Pid 0: was about to start."""

    record_version: int = RECORD_VERSION
    id: str
    endpoint: str
    version: str
    template: str
    control: Path
    log: Path
    app_root: Path | None = None
    """None: `apps/<endpoint>/<version>/<template>`, as before there could be several."""
    server_pid: int = 0
    server_mark: str = ""
    gate_pid: int = 0
    gate_mark: str = ""


class StatePaths:
    """Where everything is below a state directory."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.run = run
        self.models = root / "models"
        self.code = root / "code"
        self.endpoints = root / "endpoints"
        self.keys = root / "keys"
        self.replicas = root / "replicas"
        self.apps = root / "apps"
        self.logs = root / "logs"
        self.router = run / "router"
        """Short, since it holds the router's sockets."""

    def make(self) -> None:
        """Makes the folders that are missing."""
        for name in STATE_FOLDERS:
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
