"""A small exhaustive check: every order of arrivals, claims, hand-overs, suspicions and crashes, one replica of cap 1.

The decisions are the router's own (`next_tenure`, `may_claim`); around them is a model of fronts, queues, the gate and
what the routers hear of each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from aks_inference_runtime.router.ownership import (
    AWAY,
    Epoch,
    Phase,
    Surroundings,
    Tenure,
    may_claim,
    next_tenure,
    owner_of,
)

ENDPOINT = "svc"
MOST_CLAIMS = 8
"""Two routers that cannot hear each other may claim in turns for as long as that lasts."""


@dataclass(frozen=True)
class Word:
    """What a router said last: its tenure, which routers it knew then, and the highest number it knew."""

    tenure: Tenure
    live: frozenset[str]
    clock: int = 0


@dataclass(frozen=True)
class Router:
    alive: bool = True
    live: frozenset[str] = frozenset()
    heard: tuple[tuple[str, Word], ...] = ()
    tenure: Tenure = AWAY
    clock: int = 0
    claimed: bool = False
    """The gate took its claim, and it knows."""
    fenced: Epoch | None = None
    """The higher claim that the gate told it of."""
    orphans: int = 0
    """As it was told."""
    queue: tuple[int, ...] = ()
    sent: tuple[int, ...] = ()


@dataclass(frozen=True)
class World:
    routers: tuple[tuple[str, Router], ...]
    gate: Epoch | None = None
    line: tuple[tuple[int, str], ...] = ()
    running: tuple[tuple[int, str], ...] = ()
    orphaned: tuple[int, ...] = ()
    to_come: tuple[int, ...] = ()
    done: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    faults: int = 0
    """Crashes and suspicions that may still happen."""
    joins: tuple[str, ...] = ()
    """Routers that may still start."""
    graceful: bool = True
    """No router was suspected or crashed so far."""
    orderly: bool = True
    """Each request came while all fronts took the same router for the owner."""


def get(world: World, name: str) -> Router:
    return dict(world.routers)[name]


def put(world: World, name: str, router: Router) -> World:
    return replace(world, routers=tuple(sorted({**dict(world.routers), name: router}.items())))


def surroundings(world: World, name: str) -> Surroundings:
    router = get(world, name)
    heard = {other: word for other, word in router.heard if other in router.live}
    holders = {o: w.tenure.epoch for o, w in heard.items() if w.tenure.epoch is not None}
    heard_all = len(heard) == len(router.live) - 1
    if router.fenced is not None and router.fenced.router in heard:
        heard_all = heard_all and heard[router.fenced.router].clock >= router.fenced.number
    agree = heard_all and all(word.live == router.live for word in heard.values())
    return Surroundings(
        owner=owner_of(ENDPOINT, router.live),
        holders=holders,
        heard_all=heard_all,
        highest=router.clock,
        superseded=router.fenced is not None,
        settled=not router.queue and agree,
    )


def decide(world: World, name: str) -> World:
    router = get(world, name)
    tenure = next_tenure(name, router.tenure, surroundings(world, name))
    if tenure == router.tenure:
        return world
    fresh = tenure.epoch != router.tenure.epoch
    if fresh and tenure.phase is Phase.HOLDING and world.graceful:
        others = [get(world, other) for other, r in world.routers if other != name and r.alive]
        assert not any(r.tenure.uses_replicas for r in others), "two hold though nobody was suspected"
        assert not any(r.queue for r in others), "requests that came earlier wait elsewhere"
    if fresh and tenure.epoch is not None:
        router = replace(router, claimed=False, fenced=None, clock=tenure.epoch.number)
    return put(world, name, replace(router, tenure=tenure, claimed=router.claimed and tenure.uses_replicas))


def hear(world: World, name: str, other: str) -> World:
    router, said = get(world, name), get(world, other)
    heard = tuple(sorted({**dict(router.heard), other: word(said)}.items()))
    clock = max(router.clock, said.clock)
    return put(world, name, replace(router, live=router.live | {other}, heard=heard, clock=clock))


def word(router: Router) -> Word:
    return Word(router.tenure, router.live, router.clock)


def fence(world: World, name: str) -> World:
    """The gate tells a router of a higher claim than its own."""
    router = get(world, name)
    assert world.gate is not None
    return put(world, name, replace(router, fenced=world.gate, clock=max(router.clock, world.gate.number)))


def claim(world: World, name: str) -> World:
    """The gate hears the claim: what runs becomes orphans of the new owner; the old one is told by `fence`."""
    router = get(world, name)
    assert router.tenure.epoch is not None
    if not may_claim(world.gate, router.tenure.epoch):
        return fence(world, name)
    foreign = tuple(number for number, by in (*world.running, *world.line) if by != name)
    world = replace(world, gate=router.tenure.epoch, orphaned=tuple(sorted({*world.orphaned, *foreign})))
    return put(world, name, replace(router, claimed=True, orphans=len(world.orphaned)))


def steps(world: World) -> Iterator[World]:
    """All that may happen next; every router decides as soon as it knows something new."""
    for following in events(world):
        yield decided(following)


def decided(world: World) -> World:
    for name, router in world.routers:
        if router.alive:
            world = decide(world, name)
    return world


def events(world: World) -> Iterator[World]:  # noqa: PLR0912 - one event after the other reads best
    for name, router in world.routers:
        if not router.alive:
            continue
        if world.to_come:
            owner = owner_of(ENDPOINT, router.live)
            assert owner is not None
            if get(world, owner).alive:
                first, *rest = world.to_come
                to = get(world, owner)
                agreed = {owner_of(ENDPOINT, r.live) for _, r in world.routers if r.alive} == {owner}
                taken = replace(world, to_come=tuple(rest), orderly=world.orderly and agreed)
                yield put(taken, owner, replace(to, queue=(*to.queue, first)))
        if router.tenure.uses_replicas and not router.claimed:
            yield claim(world, name)
        if router.claimed and world.gate != router.tenure.epoch:
            yield fence(world, name)
        if router.claimed and router.orphans != len(world.orphaned):
            yield put(world, name, replace(router, orphans=len(world.orphaned)))
        if router.claimed and router.queue and len(router.sent) < 1 - router.orphans:
            first, *rest = router.queue
            sender = replace(router, queue=tuple(rest), sent=(*router.sent, first))
            yield put(replace(world, line=(*world.line, (first, name))), name, sender)
        owner = owner_of(ENDPOINT, router.live)
        if router.queue and not router.tenure.uses_replicas and owner not in (None, name) and get(world, owner).alive:
            first, *rest = router.queue
            passed = put(world, name, replace(router, queue=tuple(rest)))
            yield put(passed, owner, replace(get(passed, owner), queue=(*get(passed, owner).queue, first)))
        for other, peer in world.routers:
            if other == name or not peer.alive:
                continue
            if dict(router.heard).get(other) != word(peer) or other not in router.live:
                yield hear(world, name, other)
        for other in router.live - {name}:
            if not get(world, other).alive:
                yield put(world, name, replace(router, live=router.live - {other}))
            elif world.faults:
                suspected = put(world, name, replace(router, live=router.live - {other}))
                yield replace(suspected, faults=world.faults - 1, graceful=False)
        if world.faults and sum(r.alive for _, r in world.routers) > 1:
            yield crash(replace(world, faults=world.faults - 1, graceful=False), name)
    if world.line and not world.running:
        yield replace(world, line=world.line[1:], running=(world.line[0],))
    for number, by in world.running:
        yield finish(world, number, by)
    for name in world.joins:
        joined = replace(world, joins=tuple(j for j in world.joins if j != name))
        known = {other for other, r in world.routers if r.alive}  # the API server tells it
        yield put(joined, name, Router(live=frozenset({name, *known})))


def finish(world: World, number: int, by: str) -> World:
    world = replace(
        world,
        running=tuple(r for r in world.running if r != (number, by)),
        orphaned=tuple(o for o in world.orphaned if o != number),
        done=(*world.done, number),
    )
    router = get(world, by)
    return put(world, by, replace(router, sent=tuple(s for s in router.sent if s != number)))


def crash(world: World, name: str) -> World:
    router = get(world, name)
    running = tuple(number for number, by in world.running if by == name)
    waiting = tuple(number for number, by in world.line if by == name)
    world = replace(
        world,
        line=tuple(entry for entry in world.line if entry[1] != name),
        orphaned=tuple(sorted({*world.orphaned, *running} - {*waiting})),
        lost=(*world.lost, *router.queue, *waiting),
    )
    return put(world, name, Router(alive=False))


def check(world: World) -> None:
    assert len(world.running) <= 1, "I1: more than the cap at once"
    if world.graceful:
        users = [r for _, r in world.routers if r.alive and r.tenure.uses_replicas]
        assert len(users) <= 1, "two use the replicas though nobody was suspected"
        assert not world.line or not world.running, "the gate had to make a request wait though nobody was suspected"
    if world.graceful and world.orderly:
        assert list(world.done) == sorted(world.done), "overtaken though nobody was suspected"
    places = [*world.to_come, *world.done, *world.lost, *(n for n, _ in (*world.line, *world.running))]
    places += [n for _, r in world.routers for n in r.queue]
    assert sorted(places) == sorted(set(places)), "a request is in two places"


def healed(world: World, known: dict[World, World]) -> World:
    """What becomes of it without further faults: everybody hears everybody, nothing is in the way."""
    path = []
    while world not in known:
        path.append(world)
        assert len(path) < 200, f"does not come to rest: {world}"
        following = next(steps(world), None)
        if following is None:
            known[world] = world
        else:
            world = following
    for passed in path:
        known[passed] = known[world]
    return known[world]


def explore(start: World) -> int:
    seen = {start}
    frontier = [start]
    while frontier:
        world = frontier.pop()
        for following in steps(world):
            if following not in seen and (following.gate is None or following.gate.number <= MOST_CLAIMS):
                check(following)
                seen.add(following)
                frontier.append(following)
    known: dict[World, World] = {}
    for world in {healed(world, known) for world in seen if not world.faults and not world.joins}:
        alive = {name for name, router in world.routers if router.alive}
        holding = [name for name, router in world.routers if router.tenure.phase is Phase.HOLDING]
        assert holding == [owner_of(ENDPOINT, alive)], f"the owner does not hold: {world}"
        assert not world.to_come, f"requests that nobody takes: {world}"
        assert not any(router.queue for _, router in world.routers), f"requests wait for ever: {world}"
    return len(seen)


def knowing(*names: str) -> tuple[tuple[str, Router], ...]:
    live = frozenset(names)
    return tuple(
        (name, Router(live=live, heard=tuple((o, Word(AWAY, live)) for o in names if o != name))) for name in names
    )


@pytest.mark.parametrize(
    ("start", "least"),
    [
        pytest.param(World(knowing("a", "b"), to_come=(1, 2), faults=1), 1_000, id="two routers, one fault"),
        pytest.param(World(knowing("a", "b"), to_come=(1,), faults=2), 1_000, id="two routers, two faults"),
        pytest.param(World(knowing("a"), to_come=(1, 2), joins=("b",)), 300, id="one router, another joins"),
        pytest.param(World(knowing("b"), to_come=(1,), joins=("a",), faults=1), 1_000, id="joins, and a fault"),
    ],
)
def test_every_order_of_events(start: World, least: int) -> None:
    assert explore(start) >= least
