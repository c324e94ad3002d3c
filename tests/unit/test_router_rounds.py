"""A router's agent with many endpoints works out what has changed, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, VERSION_LABEL, RuntimeSettings
from aks_inference_runtime.api.traffic import Share, effective_traffic
from aks_inference_runtime.kubernetes import objects, routing
from aks_inference_runtime.kubernetes.agent import Agent
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.ownership import AWAY

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}


class Router:
    """Remembers what it was told, and how often it was asked."""

    unserved: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self.news = 0
        self.applied: list[RouterState] = []
        self.asked = 0
        self.refuses = False

    async def apply(self, state: RouterState) -> None:
        if self.refuses:
            raise RuntimeError("not now")
        self.applied.append(state)

    def claims(self, _: str) -> tuple[int, None]:
        self.asked += 1
        return 0, None

    def waiting(self, _: str, since: float = 0.0) -> int:
        return 0


def endpoint(name: str, wait_ms: int = 500, generation: int = 1) -> dict[str, Any]:
    requests = {"maxRequestWaitTime": wait_ms}
    version = {"name": "blue", "isDefault": True, "trafficPercentile": 100, "code": CODE, "requests": requests}
    metadata = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "generation": generation}
    return {"metadata": metadata, "spec": {"versions": [version]}}


def replicas(name: str, *uids: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": {ENDPOINT_LABEL: name, VERSION_LABEL: "blue"}},
        "ports": [{"name": "gate", "port": 8891}, {"name": "gate-control", "port": 8892}],
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"uid": uid}} for uid in uids],
    }


@pytest_asyncio.fixture
async def agent() -> Agent:
    made = Agent("me", RuntimeSettings(), Router())
    for name in ("one", "two"):
        made.known.endpoints._take("ADDED", endpoint(name))
        made.known.slices._take("ADDED", replicas(name, f"{name}-1"))
    return made


async def settled(agent: Agent) -> Any:
    """Rounds until nothing is on the move; the router, whose counts begin anew."""
    for _ in range(5):
        if not await agent.step(SimpleNamespace()):
            break
    else:
        raise AssertionError("it does not settle")
    router: Any = agent.router
    router.asked = 0
    return router


async def test_a_round_without_news_asks_nobody(agent: Agent) -> None:
    router = await settled(agent)
    assert agent.ready
    (*_, state) = router.applied
    assert {name: e.owner for name, e in state.endpoints.items()} == {"one": None, "two": None}
    before = len(router.applied)
    for _ in range(3):
        assert not await agent.step(SimpleNamespace())
    assert (router.asked, len(router.applied)) == (0, before)
    # A gate tells something new: it is looked at, and there is nothing to tell the router.
    router.news += 1
    await settled(agent)
    assert len(router.applied) == before


async def test_what_has_not_changed_stays_the_same_object(agent: Agent) -> None:
    router = await settled(agent)
    before = router.applied[-1]
    agent.known.slices._take("MODIFIED", replicas("one", "one-1", "one-2"))
    await settled(agent)
    after = router.applied[-1]
    ids = [r.id for r in after.endpoints["one"].versions[0].replicas]
    assert ids == [r.id for r in slice_of("one", "one-1", "one-2").replicas]
    assert after.endpoints["two"] is before.endpoints["two"]
    assert not await agent.step(SimpleNamespace())
    agent.known.endpoints._take("DELETED", endpoint("two"))
    await settled(agent)
    assert set(router.applied[-1].endpoints) == {"one"}
    assert set(agent.generations) == {"one"}


async def test_an_endpoint_that_is_made_again_was_not_served_before(agent: Agent) -> None:
    """Between two rounds: nobody has seen that it was gone."""
    agent.known.endpoints._take("MODIFIED", endpoint("one", generation=7))
    router = await settled(agent)
    assert agent.generations["one"] == 7
    made = endpoint("one")
    made["metadata"]["uid"] = "another"
    made["spec"]["versions"] = [
        {"name": "green", "isDefault": True, "trafficPercentile": 90, "code": CODE},
        {"name": "blue", "trafficPercentile": 10, "code": CODE},
    ]
    agent.known.endpoints._take("DELETED", endpoint("one", generation=7))
    agent.known.endpoints._take("ADDED", made)
    await settled(agent)
    versions = router.applied[-1].endpoints["one"].versions
    assert {version.name: version.traffic for version in versions} == {"green": 0, "blue": 10_000}
    assert agent.generations["one"] == 0


async def test_what_the_router_refused_is_told_again(agent: Agent) -> None:
    router = await settled(agent)
    router.refuses = True
    agent.known.endpoints._take("MODIFIED", endpoint("one", wait_ms=700, generation=2))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"):
            await agent.step(SimpleNamespace())
    assert agent.generations["one"] == 1
    router.refuses = False
    await settled(agent)
    assert agent.generations["one"] == 2


async def test_what_was_before_a_change_that_failed_is_told_again(agent: Agent) -> None:
    router = await settled(agent)
    before = router.applied[-1]
    router.refuses = True
    agent.known.endpoints._take("MODIFIED", endpoint("one", wait_ms=700, generation=2))
    with pytest.raises(RuntimeError, match="not now"):
        await agent.step(SimpleNamespace())
    router.refuses = False
    agent.known.endpoints._take("MODIFIED", endpoint("one", generation=3))
    router.applied.clear()
    await settled(agent)
    assert router.applied[-1] == before


async def test_an_endpoint_that_cannot_be_served_costs_only_itself(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it was noticed a whole round failed, and with it every change of every endpoint."""
    router = await settled(agent)
    served = router.applied[-1].endpoints["one"]
    agent.known.endpoints._take("MODIFIED", endpoint("one", wait_ms=700, generation=2))
    known = agent.known.endpoints.items["ns/one"]
    version = known.spec.versions[0].model_copy(update={"traffic_percentile": 48.305})
    bad = replace(known, spec=known.spec.model_copy(update={"versions": (version,)}))
    agent.known.endpoints._items = {**agent.known.endpoints.items, "ns/one": bad}
    agent.known.endpoints._items["ns/new"] = replace(bad, name="new", uid="uid-new")
    agent.known.endpoints._take("MODIFIED", endpoint("two", wait_ms=700, generation=2))
    await settled(agent)
    after = router.applied[-1].endpoints
    assert set(after) == {"one", "two"}
    assert after["one"].versions == served.versions, "it stays as it was"
    assert after["two"].versions[0].requests.max_request_wait_time == 700
    assert agent.generations == {"one": 1, "two": 2, "new": 0}
    assert agent.unserved.keys() == {"one", "new"}
    assert all("cannot be served as it is declared: " in why for why in agent.unserved.values())
    agent.known.endpoints._take("MODIFIED", endpoint("two", wait_ms=800, generation=3))
    await settled(agent)
    logged = [record for record in caplog.records if "is not served as it is declared" in record.message]
    assert len(logged) == 2, "once each"
    agent.known.endpoints._items = {**agent.known.endpoints.items, "ns/one": replace(known, generation=4)}
    del agent.known.endpoints._items["ns/new"]
    agent.known.endpoints._tell()
    await settled(agent)
    assert not agent.unserved
    agent.known.endpoints._take("MODIFIED", endpoint("one", wait_ms=900, generation=3))
    await settled(agent)
    assert router.applied[-1].endpoints["one"].versions[0].requests.max_request_wait_time == 900


@pytest.mark.parametrize("percents", [[48.300000000000004, 10], [48.300000000000004, 51.70000000000001], [0.1 + 0.2]])
def test_percentages_are_read_as_they_are_meant(percents: list[float]) -> None:
    """As the API server's rule takes them, to a millionth of a hundredth."""
    found = endpoint("one")
    (blue,) = found["spec"]["versions"]
    found["spec"]["versions"] = [
        {**blue, "name": f"v{number}", "isDefault": not number, "trafficPercentile": percent}
        for number, percent in enumerate(percents)
    ]
    declared = objects.declared(found)
    assert declared is not None
    assert [v.traffic_percentile for v in declared.spec.versions] == [round(percent, 2) for percent in percents]
    effective_traffic([Share(v.name, v.traffic_percentile, v.is_default) for v in declared.spec.versions])


@pytest.fixture
def agent_parts() -> Any:
    declared = objects.declared(endpoint("one"))
    assert declared is not None
    there = routing.replicas_of([slice_of("one", "one-1")])
    return routing.Routes(), (declared, there, frozenset(), routing.Part(None, AWAY))


def test_routes_are_remembered_until_something_of_them_changes(agent_parts: Any) -> None:
    routes, given = agent_parts
    first = routes.serve(*given)
    assert routes.serve(*given) is first
    endpoint_, there, _, part = given
    again = routes.serve(objects.declared(endpoint("one")), routing.replicas_of([slice_of("one", "one-1")]), *given[2:])
    assert again.route is first.route
    other = routes.serve(endpoint_, there, frozenset({"d" * 64}), part).route
    assert other.key_digests == {"d" * 64}
    away = routing.Part("b", part.tenure)
    assert routes.serve(endpoint_, there, frozenset(), away).route.owner == "b"
    fewer = routes.serve(endpoint_, {}, frozenset(), part).route
    assert fewer.versions[0].replicas == ()
    assert routes.in_force(endpoint_)
    routes.forget(but=())
    assert routes.serve(*given).route is not first.route


def slice_of(name: str, *uids: str) -> objects.Slice:
    found = objects.slice_of(replicas(name, *uids))
    assert found is not None
    return found


pieces = st.builds(slice_of, st.sampled_from(["one", "two"]), st.sampled_from(["x", "y"]), st.sampled_from(["y", "z"]))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), pieces), max_size=6))
def test_replicas_are_those_of_all_slices(steps: list[dict[str, objects.Slice]]) -> None:
    bases = routing.Bases()
    for revision, slices in enumerate(steps):
        found = bases.replicas(slices, revision)
        expected = routing.replicas_of(slices.values())
        assert found.keys() == expected.keys()
        for key, there in found.items():
            # Where one stands in two slices, either may be taken.
            assert {one.id for one in there} == {one.id for one in expected[key]}
            assert len(there) == len(expected[key])
        assert bases.replicas({}, revision) is found
