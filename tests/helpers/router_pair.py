"""Two routers on this machine, told by the test who owns what."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.model import Peer, RouterState
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.process import sockets_directory

TOKEN = "secret-of-routers"
"""What they prove to each other that they are routers with."""


class Pair:
    """Their processes."""

    def __init__(self, ports: list[int]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="aksp-"))
        self.ports = dict(zip("ab", ports[:2], strict=True))
        self.owner_ports = dict(zip("ab", ports[2:], strict=True))
        self.routers: dict[str, HaproxyRouter] = {}
        self.epoch = 0

    async def start(self) -> None:
        for name in "ab":
            cluster = Cluster(owner_host="127.0.0.1", owner_port=self.owner_ports[name], token=TOKEN)
            router = HaproxyRouter(self.directory / name, port=self.ports[name], cluster=cluster)
            self.routers[name] = router
            await router.start()

    def tenure(self, phase: Phase = Phase.HOLDING, *, name: str, epoch: int | None = None) -> Tenure:
        if epoch is None:
            self.epoch += 1
        return Tenure(phase, Epoch(epoch or self.epoch, name))

    async def tell(
        self, name: str, state: RouterState, *, owner: str | None, tenure: Tenure, alive: bool = True
    ) -> None:
        other = "b" if name == "a" else "a"
        endpoint = replace(state.endpoints["svc"], owner=owner, tenure=tenure)
        peers = {other: Peer("127.0.0.1", self.owner_ports[other], alive)}
        await self.routers[name].apply(RouterState({"svc": endpoint}, peers))

    async def give_to(self, name: str, state: RouterState) -> None:
        """`name` owns it, the other passes on."""
        other = "b" if name == "a" else "a"
        await self.tell(other, state, owner=name, tenure=AWAY)
        await self.tell(name, state, owner=None, tenure=self.tenure(name=name))

    async def stop(self) -> None:
        for router in self.routers.values():
            await router.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def came_back(self, name: str) -> int:
        """Requests that a router's first process got to decide on once more."""
        admin = AdminSocket(sockets_directory(self.directory / name) / "p0.admin")
        head, *lines = (line.split(",") for line in (await admin.run("show stat")).splitlines())
        return next(int(line[head.index("req_tot")]) for line in lines if line[:2] == ["again", "FRONTEND"])

    def pid(self, name: str, process: str) -> int:
        return int(json.loads((self.directory / name / f"{process}.json").read_bytes())["pid"])
