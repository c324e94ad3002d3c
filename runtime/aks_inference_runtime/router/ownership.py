"""Which router pod owns an endpoint, and when it may use the endpoint's replicas. Pure.

Every endpoint has one queue, in the HAProxy of its owner: exact caps and first come, first served over all routers. The
owner is found by rendezvous hashing over the live routers, so that a router that comes or goes moves only its share.

A hand-over between two live routers is graceful: fronts send new requests to the next owner at once, where they wait;
the former one goes on until nothing waits at it any more and every live router knows the new order, and then lets go.
Only then, or when the former one is not alive, does the next owner claim the endpoint, at each replica's gate, with a
higher epoch. A gate tells the former owner that it is superseded before the new one may send, and counts what still
runs from before as orphans. The gate's own limit holds in any case: an owner that does not know better (paused, cut
off) can at worst make requests wait at the gate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple


class Epoch(NamedTuple):
    """A claim: the larger one holds. The router breaks ties of two that claimed without knowing of each other."""

    number: int
    router: str


class Phase(Enum):
    """What a router is to an endpoint."""

    AWAY = "away"
    """Uses no replica. If it is the owner to be, requests wait at it until it may claim."""
    HOLDING = "holding"
    YIELDING = "yielding"
    """Another is the owner to be; what waits here is still served from here."""


@dataclass(frozen=True)
class Tenure:
    """A router's part in one endpoint."""

    phase: Phase = Phase.AWAY
    epoch: Epoch | None = None
    """Its claim, while it holds or yields."""

    @property
    def uses_replicas(self) -> bool:
        """Whether it may send requests to the replicas."""
        return self.phase is not Phase.AWAY


AWAY = Tenure()


@dataclass(frozen=True)
class Surroundings:
    """What a router knows of one endpoint when it decides."""

    owner: str | None
    """By rendezvous over the routers that it takes for alive; None: none is."""
    holders: Mapping[str, Epoch]
    """Other live routers that say that they hold or yield it."""
    heard_all: bool
    """Every router that is taken for alive has said what it holds, since the last claim of its that a gate told of. A
    new one presumes that those it was told of are alive."""
    highest: int
    """The highest epoch number ever heard of: from gates, from other routers, one's own."""
    superseded: bool
    """A gate has a higher claim than one's own (a holder's higher one counts as well)."""
    settled: bool
    """Nothing waits here, and every live router has said that it knows the same live routers."""


def owner_of(endpoint: str, routers: Iterable[str]) -> str | None:
    """The router with the highest score for this endpoint; None without routers."""
    return max(routers, key=lambda router: (_score(endpoint, router), router), default=None)


def next_tenure(me: str, tenure: Tenure, around: Surroundings) -> Tenure:
    """What the router is to the endpoint from now on."""
    mine = around.owner == me
    if tenure.epoch is not None and (around.superseded or any(e > tenure.epoch for e in around.holders.values())):
        # Somebody who could not hear from this router took over. Its claim stands until it yields or is gone.
        tenure = AWAY
    if tenure.phase is Phase.AWAY:
        if mine and around.heard_all and not around.holders:
            return Tenure(Phase.HOLDING, Epoch(around.highest + 1, me))
        return AWAY
    if mine:
        if tenure.phase is Phase.HOLDING or not around.holders:
            return Tenure(Phase.HOLDING, tenure.epoch)
        return tenure
    return AWAY if around.settled else Tenure(Phase.YIELDING, tenure.epoch)


def may_claim(present: Epoch | None, claim: Epoch) -> bool:
    """Whether a gate takes a claim. The same router may repeat its own."""
    return present is None or claim >= present


def _score(endpoint: str, router: str) -> bytes:
    return blake2b(router.encode(), key=blake2b(endpoint.encode(), digest_size=32).digest(), digest_size=16).digest()
