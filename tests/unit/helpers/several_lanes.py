"""Router pods of several lanes, whose HAProxy processes are stand-ins: what their agents decide and tell each other."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.kubernetes.agent import Agent
from aks_inference_runtime.kubernetes.words import Word
from aks_inference_runtime.router.model import RouterState, VersionKey, VersionLoad
from aks_inference_runtime.router.ownership import owner_of

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
NAMES = [f"svc-{number}" for number in range(12)]
LOAD = VersionLoad(busy=1, queued=2, requests_total=3)
SESSION: Any = SimpleNamespace()


class Router:
    """A lane's HAProxy processes, as far as the agent sees them."""

    unserved: Mapping[str, str] = MappingProxyType({})

    def __init__(self, number: int) -> None:
        self.number, self.news = number, 0
        self.state = RouterState()
        self.answers: Counter[str] = Counter({"404": 1})
        self.calls: list[str] = []
        self.waits = 0
        self.broken = ""
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def start(self) -> None:
        self.calls.append("start")
        await self.goes_on.wait()
        if self.broken == "start":
            raise OperationFailed("no haproxy")

    async def apply(self, state: RouterState) -> None:
        if self.broken == "apply":
            raise RuntimeError("not now")
        await self.goes_on.wait()
        self.state = state

    async def finish(self) -> None:
        self.calls.append("finish")

    async def stop(self) -> None:
        self.calls.append("stop")
        if self.broken == "stop":
            raise OSError("a file that cannot be removed")

    def claims(self, _: str) -> tuple[int, None]:
        return 0, None

    def waiting(self, _: str, since: float = 0.0) -> int:
        return self.waits

    def load(self) -> dict[VersionKey, VersionLoad]:
        return {VersionKey(name, "blue"): LOAD for name in self.holds()}

    def holds(self) -> list[str]:
        return [n for n, e in self.state.endpoints.items() if e.tenure is not None and e.tenure.uses_replicas]


class Pod:
    """An agent with routers that the test sees."""

    def __init__(self, name: str = "pod", **settings: Any) -> None:
        self.name, self.routers = name, {0: Router(0)}
        self.broken: set[int] = set()
        self.later = asyncio.Event()
        """Lanes that begin take their time until this is set."""
        self.later.set()
        first: Any = self.routers[0]
        self.agent = Agent(name, RuntimeSettings(**settings), first, address="10.0.0.1", make=self.make)
        for endpoint in NAMES:
            version = {"name": "blue", "isDefault": True, "trafficPercentile": 100, "code": CODE}
            metadata = {"namespace": "ns", "name": endpoint, "uid": f"uid-{endpoint}", "generation": 7}
            self.agent.known.endpoints._take("ADDED", {"metadata": metadata, "spec": {"versions": [version]}})

    def make(self, number: int) -> Any:
        made = self.routers[number] = Router(number)
        made.broken = "start" if number in self.broken else ""
        made.goes_on = self.later
        return made

    def cores(self, cores: float, name: str | None = None) -> None:
        """Of this pod, or of another one that there is."""
        self.agent.known.pods._take("ADDED", router_pod(f"{cores}", name=name or self.name))

    async def round(self) -> bool:
        self.agent._fit()
        await asyncio.sleep(0)
        return await self.agent.step(SESSION)

    async def rounds(self) -> None:
        """Until nothing is on the move."""
        quiet = 0
        async with asyncio.timeout(20):
            while quiet < 3 or self.agent._changing:
                quiet = 0 if await self.round() else quiet + 1
                await asyncio.sleep(0.005)

    def held(self) -> dict[str, list[str]]:
        return {lane.name: sorted(lane.sharing.held) for lane in self.agent.lanes.values()}

    def hears(self, other: "Pod") -> None:
        for line in other.agent.heartbeats._lines({}).splitlines():
            self.agent.heartbeats._take(other.name, Word.model_validate_json(line))


def router_pod(cpu: str | None, granted: str | None = None, name: str = "pod") -> dict[str, Any]:
    def container(cores: str | None) -> list[dict[str, Any]]:
        asked = {} if cores is None else {"requests": {"cpu": cores}}
        return [{"name": "other", "resources": {"requests": {"cpu": "9"}}}, {"name": "router", "resources": asked}]

    status: dict[str, Any] = {"podIP": "10.0.0.1"}
    if granted is not None:
        status["containerStatuses"] = container(granted)
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": container(cpu)}, "status": status}


def shared(*lanes: str) -> dict[str, list[str]]:
    """As rendezvous over these lanes has it."""
    return {lane: sorted(name for name in NAMES if owner_of(name, lanes) == lane) for lane in lanes}
