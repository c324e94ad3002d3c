"""Which configurations an agent may take over: those that it would write itself."""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.router import config, routes
from aks_inference_runtime.router.model import EndpointRoute, VersionKey, VersionRoute
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.slots import Layout, Slot
from aks_inference_runtime.router.tls import Tls

_HERE = Path(__file__).parent


@cache
def generation() -> str:
    """A digest of all that this version's processes are told, whatever is asked for: an agent that writes other maps
    than a process reads would stop all of its endpoints."""
    paths = Paths(Path("/directory"), Path("/sockets"))
    layout, peers = Layout((500,)), Cluster(owner_port=2, token="t")  # noqa: S106 - nobody serves with it
    spoken = (Tls(443, plain=True), Tls(443, until_certificate=True))
    texts = [
        *(config.first_process(paths, "127.0.0.1", 1, layout, 1, tokens=True, tls=tls) for tls in spoken),
        config.first_process(paths, "127.0.0.1", 1, layout, 1, peers),
        config.further_process(paths, 1, layout, 1, peers),
        config.port_process(paths, "port-3", "127.0.0.1", 3, "endpoint", 1, 1),
        *(script.read_text() for script in sorted(_HERE.glob("*.lua"))),
        repr(_sample()),
    ]
    # Where the package stands is no difference.
    return sha256("\n".join(texts).replace(str(_HERE), "").encode()).hexdigest()[:16]


def _sample() -> list[Mapping[str, str]]:
    """What is written into maps, by an example."""
    keys = frozenset(["digest"])
    versions = tuple(VersionRoute(name, 5_000, Requests()) for name in ("A", "B"))
    endpoint = EndpointRoute("e", AuthMode.KEY, keys, versions, cors_origins=("https://page",))
    slots = {VersionKey("e", "A"): Slot(0, 1), VersionKey("e", "B"): Slot(1, 2)}
    return [{**routes.OF_ALL, **routes.entries(endpoint, slots)}, routes.owner_entries(endpoint, slots, 1)]
