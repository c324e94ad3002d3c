"""The other routers and this one's further processes, as the first process reaches them: numbers, addresses, which of
them there are."""

import asyncio
import logging
from collections.abc import Mapping

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.fleet import Fleet
from aks_inference_runtime.router.model import Peer
from aks_inference_runtime.router.peers import backend, hop

PROBE_S = 0.5
"""For a connection to a router that nobody hears, and between two of them."""
PROBES = 4
"""That fail one after the other, until what it has in hand is not waited for."""
_log = logging.getLogger(__name__)


class Neighbours:
    """Keeps HAProxy's servers for them as they should be; a restarted process begins with what is known here."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._told: dict[int, Peer | None] = {}
        """What HAProxy has, by number; None: not known."""
        self._further: frozenset[int] = frozenset()
        """Processes of this router that it certainly has."""
        self.numbers: dict[str, int] = {}
        self._probes: dict[int, asyncio.Task[None]] = {}

    async def declare(self, peers: Mapping[str, Peer]) -> None:
        """These are the others, and no more. Raises OperationFailed for more than there is room for."""
        if self._fleet.cluster is None:
            return
        room = self._fleet.cluster.peers
        peers = _that_fit(peers, room, self.numbers)
        for name in set(self.numbers) - set(peers):
            del self.numbers[name]
        for name in peers:
            if name not in self.numbers:
                number = next((n for n in range(room) if n not in self.numbers.values()), None)
                if number is None:
                    raise OperationFailed(f"more than {room + 1} routers")
                self.numbers[name] = number
        wanted = {self.numbers[name]: peer for name, peer in peers.items()}
        self._probe(wanted)
        self._fleet.cluster = self._fleet.cluster.at({n: (p.host, p.port) for n, p in wanted.items() if p.alive})
        gone = self._told.keys() - wanted.keys()
        commands = [f"set server {backend(number)}/next state maint" for number in gone]
        new = {number: peer for number, peer in wanted.items() if self._told.get(number) != peer}
        for number, peer in new.items():
            name = f"{backend(number)}/next"
            commands += [f"set server {name} addr {peer.host} port {peer.port}"] if peer.alive else []
            commands.append(f"set server {name} state {'ready' if peer.alive else 'maint'}")
        further = self._fleet.further
        commands += [f"set server {hop(number)}/next state maint" for number in sorted(self._further - further)]
        # It counts as up at once.
        commands += [f"set server {hop(number)}/next state ready" for number in sorted(further - self._further)]
        # Until all is told: it may have been told half-way.
        self._told |= dict.fromkeys((*gone, *new))
        self._further &= further
        try:
            for command in commands:
                # It answers with what it changed.
                await self._fleet.admin(0).run(command)
        except RuntimeUnavailable:
            if "p0" not in self._fleet.dead():
                raise
        self._told, self._further = dict(wanted), further

    def close(self) -> None:
        """Asks nobody any more."""
        self._probe({})

    def _probe(self, wanted: Mapping[int, Peer]) -> None:
        silent = {number: peer for number, peer in wanted.items() if not peer.alive}
        for number in self._probes.keys() - silent.keys():
            self._probes.pop(number).cancel()
        for number, peer in silent.items():
            if number not in self._probes:
                self._probes[number] = asyncio.create_task(self._until_lost(number, peer))

    async def _until_lost(self, number: int, peer: Peer) -> None:
        """Whom nobody hears may only have an agent that hangs, and answer all the same. Where no connection is taken
        either, its machine is lost or the way to it: requests there would wait for HAProxy's own timeout."""
        failed = 0
        while failed < PROBES:
            await asyncio.sleep(PROBE_S)
            failed = 0 if await _reached(peer) else failed + 1
        _log.warning("router at %s cannot be reached; what it has is sent to others", peer.host)
        try:
            await self._fleet.first().run(f"shutdown sessions server {backend(number)}/next")
        except RuntimeUnavailable as error:
            _log.info("%s", error)


def _that_fit(peers: Mapping[str, Peer], room: int, numbers: Mapping[str, int]) -> Mapping[str, Peer]:
    """All; where there is no room for them those that are of no use are left out: first who leaves and holds nothing,
    as while a pod that is replaced has long requests, then whom nobody hears."""
    if len(peers) <= room:
        return peers
    use = sorted(peers, key=lambda name: (peers[name].idle, not peers[name].alive, name not in numbers))
    return {name: peers[name] for place, name in enumerate(use) if place < room or _of_use(peers[name])}


def _of_use(peer: Peer) -> bool:
    return peer.alive and not peer.idle


async def _reached(peer: Peer) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(peer.host, peer.port)
    except OSError:
        return False
    writer.close()
    return True
