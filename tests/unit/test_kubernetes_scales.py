"""Scales are written on what they were decided on, one at a time for each version."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.workloads import Workload
from aks_inference_runtime.router.model import VersionKey

KEY = VersionKey("svc", "blue")
PATH = "/apis/apps/v1/namespaces/ns/deployments/svc-blue"


class Api:
    """One Deployment."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.writings: list[int] = []
        self.under_way = self.most = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.before_patch: Callable[[], None] = lambda: None

    async def edit(self, path: str, steps: list[dict[str, Any]]) -> None:
        assert path == f"{PATH}/scale"
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go_on.wait()
        self.under_way -= 1
        self.before_patch()
        same, new = steps
        assert [same["op"], same["path"], new["op"], new["path"]] == ["test", "/spec/replicas", "add", "/spec/replicas"]
        if same["value"] != (self.replicas or None):
            raise OperationFailed("testing value /spec/replicas failed")
        self.replicas = new["value"]
        self.writings.append(self.replicas)


def work(replicas: int) -> Workload:
    return Workload("ns", "svc-blue", ("ns", "svc", "blue"), replicas, 1, 1, 1, current=True, overdue=False, need={})


def scaler(api: Api, leads: Callable[[], bool] = lambda: True) -> ClusterScaler:
    made = ClusterScaler(RuntimeSettings(), leads, lambda: 0.0)
    made._api = api  # type: ignore[assignment]
    return made


async def over(made: ClusterScaler) -> None:
    async with asyncio.timeout(20):
        while made._tasks:
            await asyncio.sleep(0)


async def test_what_is_decided_while_one_is_written_follows_it() -> None:
    api = Api(1)
    api.go_on.clear()
    made = scaler(api)
    made._set(KEY, work(1), 3)
    async with asyncio.timeout(20):
        while not api.under_way:
            await asyncio.sleep(0)
    made._set(KEY, work(1), 5)
    made._set(KEY, work(1), 4)
    api.go_on.set()
    await over(made)
    assert (api.writings, api.most, made.written) == ([3, 4], 1, 2)
    assert made._current(KEY, work(1)) == 4
    made._set(KEY, work(1), 6)
    await over(made)
    assert api.writings == [3, 4, 6]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_number_that_another_one_wrote_is_not_overwritten(when: str) -> None:
    api = Api(1)

    def another() -> None:
        api.replicas = 9

    if when == "before":
        another()
    else:
        api.before_patch = another
    made = scaler(api)
    made._set(KEY, work(1), 3)
    await over(made)
    assert (api.writings, api.replicas) == ([], 9)
    # It is decided anew, by what is there.
    assert made._current(KEY, work(9)) == 9


async def test_who_leads_no_more_writes_nothing() -> None:
    api = Api(1)
    made = scaler(api, lambda: False)
    made._set(KEY, work(1), 3)
    await over(made)
    assert api.writings == []
