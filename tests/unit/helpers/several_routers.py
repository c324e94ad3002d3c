"""Several routers in a clock of the test's own: the agents' decisions and the gates' counts are the real ones.

Modelled around them: HAProxy (a queue an endpoint, a cap a replica), who hears whom, what the API server tells, and
agents that stand still while their HAProxy goes on with the caps that it has.
"""

from collections import deque
from dataclasses import dataclass, field

from aks_inference_runtime.kubernetes.sharing import Sharing, Told
from aks_inference_runtime.kubernetes.words import Heard, View, Word, view
from aks_inference_runtime.router.caps import ReplicaView, SlotView, caps
from aks_inference_runtime.router.gate.admission import Admission, Ticket
from aks_inference_runtime.router.ownership import AWAY, Epoch, may_claim
from aks_inference_runtime.router.slots import Slot

TICK_S = 0.1
SLOT = Slot(1, 0)
ALONE = View(frozenset(), frozenset())


@dataclass
class Gate:
    """A replica's gate: its limit, its line, whose claim holds."""

    name: str
    endpoint: str
    limit: int
    ready: bool = True
    claim: Epoch | None = None
    admission: Admission = field(init=False)
    tickets: dict[int, tuple[Ticket, str]] = field(default_factory=dict)
    """By request: its place and the router that sent it."""
    most: int = 0

    def __post_init__(self) -> None:
        self.admission = Admission(self.limit, lambda: None)

    def enter(self, request: int, sender: str) -> None:
        ticket = Ticket(self._counted)
        self.tickets[request] = (ticket, sender)
        self.admission.enter(ticket)

    def finish(self, request: int) -> str:
        ticket, sender = self.tickets.pop(request)
        self.admission.finish(ticket)
        return sender

    def running(self) -> list[int]:
        return [request for request, (ticket, _) in self.tickets.items() if ticket.running]

    def _counted(self) -> None:
        self.most = max(self.most, self.admission.running)


@dataclass
class Router:
    """An agent and its HAProxy."""

    name: str
    sharing: Sharing
    paused: bool = False
    leaving: bool = False
    known: dict[str, float] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    view: View = ALONE
    word: Word | None = None
    held: dict[str, int] = field(default_factory=dict)
    agreed_at: float | None = None
    queues: dict[str, deque[int]] = field(default_factory=dict)
    sent: dict[str, set[int]] = field(default_factory=dict)
    """By replica: what is there of its HAProxy."""
    caps: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str | None] = field(default_factory=dict)
    """By endpoint, as its fronts work."""
    unplaced: deque[tuple[str, int]] = field(default_factory=deque)
    """What its front could not send on."""


class World:
    """Everything there is."""

    def __init__(self, gates: list[Gate], names: list[str]) -> None:
        self.now = 0.0
        self.gates = {gate.name: gate for gate in gates}
        self.endpoints = sorted({gate.endpoint for gate in gates})
        self.routers: dict[str, Router] = {}
        self.gone: list[str] = []
        """Crashed, and still among the pods of the API server."""
        self.deaf: set[tuple[str, str]] = set()
        """(listener, speaker)"""
        self.unlisted: set[tuple[str, str]] = set()
        """(who is told, of whom): the API server does not name it."""
        self.numbers = 0
        self.done: list[int] = []
        self.lost: list[int] = []
        self.graceful = True
        """Nobody was silent, cut off or lost so far."""
        self.began: dict[str, list[int]] = {endpoint: [] for endpoint in self.endpoints}
        """In the order in which the replicas got them."""
        self.orderly = dict.fromkeys(self.endpoints, True)
        """Each request came while all fronts took the same router for the owner, in which nothing changed hands."""
        for name in names:
            self.join(name)

    # --- what happens

    def join(self, name: str) -> None:
        self.routers[name] = Router(name, Sharing(name))

    def arrive(self, front: str, endpoint: str) -> None:
        self.numbers += 1
        owners = {router.owners.get(endpoint) or router.name for router in self.routers.values()}
        self.orderly[endpoint] &= len(owners) == 1
        self.routers[front].unplaced.append((endpoint, self.numbers))

    def crash(self, name: str) -> None:
        """Agent and HAProxy at once. What waited in it is lost, what runs stays at the replicas."""
        self.graceful = False
        router = self.routers.pop(name)
        self.lost += [number for queue in router.queues.values() for number in queue]
        self.lost += [number for _, number in router.unplaced]
        for gate in self.gates.values():
            for request, (ticket, sender) in tuple(gate.tickets.items()):
                if sender == name:
                    if gate.admission.leave(ticket):
                        del gate.tickets[request]
                        self.lost.append(request)
                    else:
                        gate.admission.abandon(ticket)
        self.gone.append(name)

    def finish(self, gate: Gate, request: int) -> None:
        sender = gate.finish(request)
        self.done.append(request)
        if sender in self.routers:
            self.routers[sender].sent[gate.name].discard(request)
        self._inform(gate)
        self.forward()

    def tick(self, order: list[str]) -> None:
        """A tenth of a second: everybody hears, decides and says, in this order."""
        self.now += TICK_S
        for name in order:
            if name in self.routers and not self.routers[name].paused:
                self._hear(self.routers[name])
                self._step(self.routers[name])
                self.forward()
        self.forward()

    # --- the agent

    def _hear(self, router: Router) -> None:
        there = {name for name in (*self.routers, *self.gone) if name != router.name}
        there -= {other for told, other in self.unlisted if told == router.name}
        for name in router.known.keys() - there:
            del router.known[name]
            router.heard.pop(name, None)
        for name in there:
            other = self.routers.get(name)
            # Who is told of for the first time is heard later.
            if name in router.known and other is not None and self._hears(router, other):
                assert other.word is not None
                router.heard[name] = Heard(other.word, dict(other.held), self.now)
            router.known.setdefault(name, self.now)
        router.view = view(
            router.name, leaving=router.leaving, known=router.known, heard=dict(router.heard), now=self.now
        )

    def _hears(self, router: Router, other: Router) -> bool:
        return not other.paused and other.word is not None and (router.name, other.name) not in self.deaf

    def _step(self, router: Router) -> None:
        parts = router.sharing.decide(self.endpoints, router.view, self._told(router))
        router.owners = {endpoint: part.owner for endpoint, part in parts.items()}
        for gate in self.gates.values():
            epoch = parts[gate.endpoint].tenure.epoch
            if epoch is not None and gate.claim != epoch and may_claim(gate.claim, epoch):
                gate.claim = epoch
                gate.admission.disown()
                # Who can act on it does so before the claimant may send.
                for other in self.routers.values():
                    if other is not router and not other.paused:
                        self._set_cap(other, gate)
            self._set_cap(router, gate)
        router.held = router.sharing.held
        router.word = Word(
            router=router.name,
            clock=router.sharing.clock,
            candidates=tuple(sorted(router.view.candidates)),
            leaving=router.leaving,
            held=None,
        )

    def _told(self, router: Router) -> dict[str, Told]:
        if not router.view.agreed:
            router.agreed_at = None
        elif router.agreed_at is None:
            router.agreed_at = self.now
        told = {}
        for endpoint, tenure in router.sharing.tenures.items():
            claims = [
                gate.claim for gate in self.gates.values() if gate.endpoint == endpoint and gate.claim is not None
            ]
            above = [claim for claim in claims if tenure.epoch is not None and claim > tenure.epoch]
            looked = router.agreed_at is not None and self.now > router.agreed_at
            settled = looked and not router.queues.get(endpoint)
            told[endpoint] = Told(settled, max((c.number for c in claims), default=0), max(above, default=None))
        return told

    def _set_cap(self, router: Router, gate: Gate) -> None:
        tenure = router.sharing.tenures.get(gate.endpoint, AWAY)
        usable = gate.ready and tenure.uses_replicas and gate.claim == tenure.epoch
        seen = ReplicaView(usable, gate.limit, gate.admission.orphans)
        current = {gate.name: len(router.sent.get(gate.name, ()))}
        queued = len(router.queues.get(gate.endpoint, ()))
        router.caps[gate.name] = caps(gate.name, seen, (SlotView(SLOT, queued, current),))[SLOT]

    def _inform(self, gate: Gate) -> None:
        """The gate tells all that listen of its orphans."""
        for router in self.routers.values():
            if not router.paused:
                self._set_cap(router, gate)

    # --- HAProxy

    def forward(self) -> None:
        """All requests go as far as they can now."""
        waiting = [
            (number, endpoint, router) for router in self.routers.values() for endpoint, number in router.unplaced
        ]
        for number, endpoint, router in sorted(waiting, key=lambda entry: entry[0]):
            owner = router.owners.get(endpoint) or router.name
            if owner in self.routers and endpoint in router.owners:
                router.unplaced.remove((endpoint, number))
                self.routers[owner].queues.setdefault(endpoint, deque()).append(number)
        for router in tuple(self.routers.values()):
            for endpoint, queue in router.queues.items():
                tenure = router.sharing.tenures.get(endpoint, AWAY)
                owner = router.owners.get(endpoint)
                if not tenure.uses_replicas and owner is not None and not router.paused:
                    router.unplaced.extend((endpoint, number) for number in queue)
                    queue.clear()
                for gate in self.gates.values():
                    there = router.sent.setdefault(gate.name, set())
                    while queue and gate.endpoint == endpoint and len(there) < router.caps.get(gate.name, 0):
                        number = queue.popleft()
                        there.add(number)
                        self.began[endpoint].append(number)
                        gate.enter(number, router.name)

    # --- what must hold

    def places(self) -> list[int]:
        """Of every request; one that is in two places stands twice."""
        found = [*self.done, *self.lost, *(number for gate in self.gates.values() for number in gate.tickets)]
        for router in self.routers.values():
            found += [number for queue in router.queues.values() for number in queue]
            found += [number for _, number in router.unplaced]
        return found

    def users(self, endpoint: str) -> list[str]:
        """Routers that use its replicas."""
        return [r.name for r in self.routers.values() if r.sharing.tenures.get(endpoint, AWAY).uses_replicas]
