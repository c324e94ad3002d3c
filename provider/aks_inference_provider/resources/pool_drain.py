"""PoolDrain: before a node pool goes, what runs on its nodes is moved to the others.

It is made after its pool and deleted before it: a pool that is replaced has its successor by then. Azure itself deletes
a pool with everything that runs on it.
"""

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aks_inference.findings import Casing, in_casing
from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Field, Kind, check_fields
from aks_inference_provider.progress import Progress
from aks_inference_provider.resources import drain_rules as rules
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import plain
from aks_inference_runtime.api.errors import AksInferenceError, Conflict, NotFound, RuntimeUnavailable
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL
from aks_inference_runtime.kubernetes.client import Api, connected
from aks_inference_runtime.kubernetes.connection import Connection, from_kubeconfig
from aks_inference_runtime.kubernetes.log_in import by_program

INPUTS = (
    Field("poolId", Kind.STRING, "Required. Resource id of the node pool.", required=True, replaces=True),
    Field("kubeconfig", Kind.STRING, "Optional. Default: the pool goes as it is.", secret=True),
)
LONGEST_S = 1800.0
"""AKS's own drain timeout for a node, by default (doc upgrade-aks-node-pools-rolling)."""
OTHERS_S = 120.0
"""So long pods that are not ours hold a pool back; AKS ends them with their nodes."""
POLL_S = 2.0
MOST_MOVES = 5
"""Of one Deployment: its pods may tolerate cordoned nodes, and would come back for ever."""

Object = Mapping[str, Any]


class Drain:
    """The work on one pool; `poll_s` and `now` are for tests."""

    def __init__(
        self,
        api: Api,
        pool: str,
        progress: Progress,
        longest_s: float,
        poll_s: float = POLL_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._pool, self._progress = api, pool, progress
        self._poll_s, self._now, self._begun, self._longest_s = poll_s, now, now(), longest_s
        self._moved: defaultdict[rules.Workload, list[str]] = defaultdict(list)
        """What its pods were marked with, each time that it was moved."""

    async def run(self) -> None:
        """Returns when the nodes are empty. Raises ResourceFailed, with the nodes open again."""
        nodes = await self._nodes()
        mine = rules.nodes_of(nodes, self._pool)
        if not mine:
            return
        if not rules.others_open(nodes, self._pool):
            self._progress.warn(f"no other node takes pods: what runs on the pool {self._pool} goes with it")
            return
        held = [node for node in mine if not (node.get("spec") or {}).get("unschedulable")]
        try:
            for node in held:
                await self._cordon(rules.name_of(node), True)
            await self._empty([rules.name_of(node) for node in mine])
        except BaseException:
            # As it was: the pool stays, and may be needed.
            for node in held:
                with contextlib.suppress(AksInferenceError):
                    await self._cordon(rules.name_of(node), False)
            raise

    async def _empty(self, names: Sequence[str]) -> None:
        why = ""
        while True:
            try:
                own, others = rules.ours(rules.staying(await self._pods(names), names))
                if not own and (not others or self._spent() > OTHERS_S):
                    self._left(others)
                    return
                await self._move(own)
                for pod in rules.to_evict(others):
                    await self._evict(pod)
                stuck = rules.waiting(await self._pending()) if own else []
                why = f"{rules.summary(own, others)} to go" + (f"; {'; '.join(stuck[:3])}" if stuck else "")
                if not await self._elsewhere():
                    self._progress.warn(f"no other node takes pods any more: {why}, and they end with the pool")
                    return
            except RuntimeUnavailable as error:
                why = str(error)
            self._progress.status(f"pool {self._pool}, {len(names)} nodes, since {self._spent():.0f} s: {why}")
            if self._spent() > self._longest_s:
                longer = in_casing("@delete_timeout_minutes", Casing.BOTH)
                raise ResourceFailed(
                    f"pool {self._pool}: not empty after {self._longest_s:.0f} s: {why}; its nodes take pods again and "
                    f"nothing is deleted; give the cluster room, or raise {longer}, and apply again"
                )
            await asyncio.sleep(self._poll_s)

    async def _move(self, own: Sequence[Object]) -> None:
        spaces = {str(pod["metadata"]["namespace"]) for pod in own}
        sets = [one for space in spaces for one in await self._replica_sets(space)]
        found = {(workload, rules.mark_of(pod)) for pod in own for workload in rules.workloads([pod], sets)}
        for workload in sorted({workload for workload, mark in found if self._to_move(workload, mark)}):
            mark = f"{time.time():.0f}"
            with contextlib.suppress(NotFound):
                await self._api.patch(workload.path, rules.marked(mark))
            self._moved[workload].append(mark)

    def _to_move(self, workload: rules.Workload, mark: str) -> bool:
        """Whether it was not moved yet; or a pod of the last move was put here, by a scheduler that had not heard."""
        marks = self._moved[workload]
        return not marks or (mark == marks[-1] and len(marks) < MOST_MOVES)

    async def _evict(self, pod: Object) -> None:
        space, name = str(pod["metadata"]["namespace"]), rules.name_of(pod)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": space}}
        # A budget says no, for now.
        with contextlib.suppress(NotFound, Conflict, RuntimeUnavailable):
            await self._api.create(f"/api/v1/namespaces/{space}/pods/{name}/eviction", body)

    async def _cordon(self, name: str, closed: bool) -> None:
        held = {"annotations": {rules.HELD_ANNOTATION: "true" if closed else None}}
        body: dict[str, Any] = {"metadata": held, "spec": {"unschedulable": True if closed else None}}
        with contextlib.suppress(NotFound):
            await self._api.patch(f"/api/v1/nodes/{name}", body)

    async def _nodes(self) -> list[dict[str, Any]]:
        found, _ = await self._api.list("/api/v1/nodes")
        return found

    async def _elsewhere(self) -> bool:
        return bool(rules.others_open(await self._nodes(), self._pool))

    async def _pods(self, names: Sequence[str]) -> list[Object]:
        found: list[Object] = []
        for name in names:
            page = await self._api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={name}")
            found += page.get("items") or []
        return found

    async def _pending(self) -> list[Object]:
        own = f"{PART_OF_LABEL}={PART_OF}"
        page = await self._api.get("/api/v1/pods", fieldSelector="status.phase=Pending", labelSelector=own)
        return list(page.get("items") or [])

    async def _replica_sets(self, space: str) -> list[dict[str, Any]]:
        own = f"{PART_OF_LABEL}={PART_OF}"
        found, _ = await self._api.list(f"/apis/apps/v1/namespaces/{space}/replicasets", own)
        return found

    def _left(self, others: Sequence[Object]) -> None:
        if others:
            names = ", ".join(f"{pod['metadata']['namespace']}/{rules.name_of(pod)}" for pod in others[:5])
            self._progress.warn(f"pool {self._pool}: {len(others)} pods of others end with its nodes: {names}")

    def _spent(self) -> float:
        return self._now() - self._begun


class PoolDrain:
    """See the module."""

    token = f"{PACKAGE}:index:PoolDrain"
    description = "Moves what runs on a node pool to other nodes before the pool is deleted."
    inputs = INPUTS
    outputs: tuple[Field, ...] = ()

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Nothing is looked up."""
        return Checked(news, check_fields(INPUTS, plain(news)))

    async def diff(self, state: State, news: Raw) -> Diff:
        """Another pool is another one; another kubeconfig is kept for later."""
        found = changes(plain(state.inputs), plain(news))
        return Diff({path: Difference(change, replaces=path == "poolId") for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """There are no outputs."""
        return {}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Nothing but the record."""
        return Made(str(plain(inputs)["poolId"]), {})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Nothing but the record."""
        return {}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Empties the pool's nodes. Raises ResourceFailed where that does not succeed: then the pool stays."""
        given = plain(state.inputs)
        kubeconfig, pool = given.get("kubeconfig"), str(given["poolId"]).rsplit("/", 1)[-1]
        if not kubeconfig:
            return
        try:
            async with connected(await asyncio.to_thread(_connection, str(kubeconfig))) as api:
                await Drain(api, pool, operation.progress, operation.timeout_s or LONGEST_S).run()
        except RuntimeUnavailable as error:
            raise ResourceFailed(
                f"pool {pool}: what runs on it cannot be moved: {error}; if the cluster is gone: "
                f"pulumi state delete '{operation.urn.text}'"
            ) from None


def _connection(kubeconfig: str) -> Connection:
    with tempfile.NamedTemporaryFile("w", prefix="aks-inference-", suffix=".kubeconfig") as file:  # 0600
        file.write(kubeconfig)
        file.flush()
        return from_kubeconfig(Path(file.name), log_in=by_program)
