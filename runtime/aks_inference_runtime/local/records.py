"""What the supervisor keeps on disk."""

import logging
import shutil
from pathlib import Path

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.supervisor import OBSERVING_FILE, RECORD_VERSION, EndpointKeys
from aks_inference_runtime.local.files import remove_tree

STATE_FOLDERS = ("models", "stores", "code", "endpoints", "keys", "replicas", "apps", "logs")
WEBHOOK_FILE = "webhook"
"""Its address, a secret."""
TOLD_FILE = "told.json"
STATE_FILES = (
    *(OBSERVING_FILE, WEBHOOK_FILE, TOLD_FILE),
    *("supervisor.log", "supervisor.log.1", "supervisor.lock", "supervisor.json"),
)
_log = logging.getLogger(__name__)


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


class ToldRecord(Wire):
    """`told.json`: the state of each endpoint that the webhook was told last."""

    record_version: int = RECORD_VERSION
    states: dict[str, str]


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


def remove_state(paths: StatePaths) -> None:
    """Removes all files of a cluster, and only its own. The record goes last: it is what leads to the rest."""
    root: Path = paths.root
    for name in STATE_FOLDERS:
        remove_tree(root / name)
    shutil.rmtree(paths.run, ignore_errors=True)
    for name in STATE_FILES:
        (root / name).unlink(missing_ok=True)
    try:
        root.rmdir()
    except FileNotFoundError:
        pass  # another one was faster
    except OSError:
        _log.warning("%s is kept: it holds files of others", root)
