"""The router's pure parts: admission, caps, slots, routes, HAProxy's figures."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.admin import parse_stat
from aks_inference_runtime.router.caps import ReplicaView, SlotView, caps
from aks_inference_runtime.router.gate.admission import Admission, Ticket
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, VersionKey, VersionRoute
from aks_inference_runtime.router.observing import partial
from aks_inference_runtime.router.slots import Layout, Slot, assign, layout_for

LIMIT = 3


class AdmissionMachine(RuleBasedStateMachine):
    """I1 and I2 of the gate: whatever comes, leaves, is abandoned or finishes."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(LIMIT, lambda: None)
        self.tickets: list[Ticket] = []
        self.started: list[int] = []
        self.left: set[int] = set()

    def running(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.running]

    @rule()
    def enter(self) -> None:
        number = len(self.tickets)
        ticket = Ticket(lambda: self.started.append(number))
        self.tickets.append(ticket)
        assert self.admission.enter(ticket) == (number in self.started)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data) -> None:
        number = data.draw(st.integers(0, len(self.tickets) - 1))
        ticket = self.tickets[number]
        waited = number not in self.started and not ticket.finished
        assert self.admission.leave(ticket) == (not ticket.running)
        if waited:
            self.left.add(number)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), finish=st.booleans())
    def abandon_or_finish(self, data, finish) -> None:
        ticket = data.draw(st.sampled_from(self.running()))
        (self.admission.finish if finish else self.admission.abandon)(ticket)

    @invariant()
    def never_above_the_limit_and_nobody_waits_beside_a_free_slot(self) -> None:
        assert self.admission.running == len(self.running()) <= LIMIT
        assert self.admission.orphans == sum(t.orphan for t in self.running())
        assert not self.admission.waiting or self.admission.running == LIMIT

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.started == sorted(self.started)
        assert not self.left & set(self.started)


TestAdmission = AdmissionMachine.TestCase


@given(
    limit=st.integers(1, 8),
    orphans=st.integers(0, 8),
    usable=st.booleans(),
    slots=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_caps_never_admit_more_than_the_replica_may_have(limit, orphans, usable, slots):
    views = [SlotView(Slot(0, n), queued, {"r": current}) for n, (queued, current) in enumerate(slots)]
    found = caps("r", ReplicaView(usable, limit, orphans), views)
    admitting = [slot for slot, cap in found.items() if cap]
    assert len(admitting) <= (1 if usable else 0)
    for slot in admitting:
        elsewhere = sum(view.current["r"] for view in views if view.slot != slot)
        assert found[slot] + elsewhere + orphans <= limit
        # Nobody who came earlier, in an older slot, still waits.
        assert not any(view.queued for view in views[: slot.number])


KEYS = [VersionKey("e", name) for name in "abcdef"]


@given(
    wanted=st.dictionaries(st.sampled_from(KEYS), st.sampled_from([100, 500, 777]), max_size=6),
    current=st.dictionaries(st.sampled_from(KEYS), st.builds(Slot, st.integers(0, 1), st.integers(0, 5)), max_size=6),
    occupied=st.sets(st.builds(Slot, st.integers(0, 1), st.integers(0, 5))),
)
def test_assigned_slots_fit_and_are_nobody_elses(wanted, current, occupied):
    current = {key: slot for key, slot in current.items() if Counter(current.values())[slot] == 1}
    layouts = {0: Layout((500, 500, 500, 100)), 1: Layout((500, 777))}
    found = assign(wanted, current, layouts, occupied)
    assert len(set(found.slots.values())) == len(found.slots)
    for key, slot in found.slots.items():
        assert layouts[slot.process].timeouts_ms[slot.number] == wanted[key]
        assert current.get(key) == slot or slot not in occupied | set(current.values())
    assert sum(found.missing.values()) == len(wanted) - len(found.slots)
    # With a process for what is missing, everything finds its place.
    layouts[2] = layout_for(found.missing)
    assert not assign(wanted, current, layouts, occupied).missing


def version(name: str, traffic: int) -> VersionRoute:
    return VersionRoute(name, traffic, Requests())


@pytest.mark.parametrize(
    ("shares", "count"),
    [
        ((10_000,), 1),
        ((9_000, 1_000), 10),
        ((5_000, 5_000), 2),
        ((9_999, 1), 10_000),
        ((0, 10_000), 1),
        ((3_333, 6_667), 10_000),
        ((2_500, 2_500, 5_000), 4),
    ],
)
def test_buckets(shares, count):
    found = routes.buckets(tuple(version(str(n), share) for n, share in enumerate(shares)))
    assert len(found) == count
    # rand(10000) is reduced by the number of buckets: it must divide evenly, or some buckets get more.
    assert 10_000 % count == 0
    assert [Counter(found)[n] * 10_000 // count for n in range(len(shares))] == list(shares)


def endpoint(name: str = "svc", **changes: object) -> EndpointRoute:
    return EndpointRoute(**{  # type: ignore[arg-type]
        "name": name, "auth": AuthMode.KEY, "key_digests": frozenset({"AB" * 32}),
        "versions": (version("A", 9_000), version("B", 1_000)),
    } | changes)  # fmt: skip


def test_the_table():
    slots = {VersionKey("svc", "A"): Slot(0, 3), VersionKey("svc", "B"): Slot(2, 1)}
    table = routes.entries(endpoint(), slots)
    path = "/api/v1/service/svc/score"
    assert table[path].startswith("10|1|")
    assert table[path].endswith("|key")
    assert table[f"{'ab' * 32}#{table[path]}"] == "1"
    assert [table[f"{path}?{n}"] for n in range(10)] == ["s3|s3|62500|1000|A"] * 9 + ["hop2|s1|62500|1000|B"]
    assert table[f"{path}?@B"] == "hop2|s1|62500|1000|B"
    assert table["/api/v1/service/svc/swagger.json?0"] == "s3|s3|62500|1000|A"
    # A remembered key counts only as long as the set of keys is the same.
    other = routes.entries(endpoint(key_digests=frozenset({"cd" * 32})), slots)
    assert other[path] != table[path]


@pytest.mark.parametrize(
    "bad",
    [
        {"bad name": endpoint("bad name")},
        {"a|b": endpoint("a|b")},
        {"svc\nx": endpoint("svc\nx")},
        {"other": endpoint("svc")},
        {"svc": endpoint(versions=(version("A", 9_000),))},
        {"svc": endpoint(versions=(version("A b", 10_000),))},
        {"svc": endpoint(versions=(VersionRoute("A", 10_000, Requests(), (ReplicaTarget("r/1", "h", 1, None),)),))},
    ],
    ids=list("abcdefg"),
)
def test_what_cannot_be_served_is_refused(bad):
    with pytest.raises(InvalidInput):
        routes.check(bad)


@given(st.dictionaries(st.sampled_from(KEYS), st.lists(st.builds(Slot, st.integers(0, 3), st.integers(0, 99)))))
def test_slots_are_remembered(slots):
    assert routes.slots_from_json(routes.slots_to_json(slots)) == slots


@pytest.mark.parametrize("text", ["", "{", "3", '[["a"]]', '[["a", "b", [[1]]]]', '[["a", "b", 3]]', "null"])
def test_a_damaged_memory_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kind
        routes.slots_from_json(text)


def test_figures():
    text = (
        "# pxname,svname,qcur,qmax,scur,smax,slim,stot,dreq,econ,status,\n"
        "s0,park,0,0,1,1,1,1,,0,no check,\ns0,r1,0,0,2,2,4,10,,0,no check,\n"
        "s0,BACKEND,7,9,3,10,200,21,5,6,UP,\n"
    )
    stat = parse_stat(text)
    row = stat.backends["s0"]
    # One of the 21 was the router's own, which holds `park`.
    assert (row.queued, row.total, row.denied, row.failed) == (7, 20, 5, 6)
    (server,) = stat.servers["s0"]
    assert (server.name, server.current, server.maxconn, server.total) == ("r1", 2, 4, 10)


def test_a_look_at_some_slots_keeps_what_was_known_of_the_others():
    header = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,dreq,econ,status,\n"
    every = parse_stat(
        f"{header}s0,r1,0,0,2,2,4,10,,0,no check,\ns0,BACKEND,7,9,3,10,200,21,5,6,UP,\n"
        "s1,r2,0,0,1,2,4,10,,0,no check,\ns1,BACKEND,0,9,3,10,200,21,5,6,UP,\n"
    )
    # Two answers in one; the second slot has lost its server.
    some = parse_stat(
        f"{header}s0,r1,0,0,1,2,4,11,,0,no check,\ns0,BACKEND,3,9,3,10,200,22,5,6,UP,\n\n"
        f"{header}s1,BACKEND,0,9,3,10,200,21,5,6,UP,\n"
    )
    assert set(some.backends) == {"s0", "s1"}
    merged = some.over(every)
    assert (merged.backends["s0"].queued, merged.servers["s0"][0].current) == (3, 1)
    assert "s1" not in merged.servers
    part = parse_stat(f"{header}s0,BACKEND,0,9,3,10,200,22,5,6,UP,\n").over(every)
    assert part.servers == {"s1": every.servers["s1"]}
    assert part.counts["s1"] == every.counts["s1"]


@pytest.mark.parametrize(
    ("count", "since_s", "expected"),
    [(0, 0.1, True), (24, 0.1, True), (25, 0.1, False), (1, 1.0, False), (1, 1e9, False)],
)
def test_when_a_look_at_some_slots_is_enough(count, since_s, expected):
    assert partial(range(count), since_s) is expected
