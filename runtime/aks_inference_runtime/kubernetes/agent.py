"""The router's agent in a cluster: learns from the API server and the other routers, and tells HAProxy."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping

import aiohttp

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import MOST_LANES, RuntimeSettings, router_lanes
from aks_inference_runtime.kubernetes import objects, reports, routing
from aks_inference_runtime.kubernetes.client import Api
from aks_inference_runtime.kubernetes.heartbeats import Heartbeats
from aks_inference_runtime.kubernetes.known import Known
from aks_inference_runtime.kubernetes.lane import Lane, lane_name, pod_of
from aks_inference_runtime.observability.failures import Failures
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.answers import AnswerKey
from aks_inference_runtime.router.peers import LANE_PEERS, MAX_PEERS

STEP_S = 0.1
"""Between looks when nothing was reported: silence is no news."""
MOVING_S = 0.02
"""While an endpoint changes hands."""
NOTICE_S = 5.0
"""So long new clients still come to one that leaves: kube-proxies and a load balancer hear of its end no sooner than it
does, and some seconds late."""
LEAVE_S = 5.0
"""How long others may take beyond that to have its endpoints, before its own requests are waited for."""
AGAIN_S = 5.0
"""Between attempts to start a lane that does not start, or to end one that does not end."""
LATE_S = 2.0
"""What was sent to a lane by an older view may arrive so long after all have another one: both of its processes pass it
on."""
UNHEARD_S = 60.0
"""Routers that are not heard may go on sending to a lane that has left. By then their kubelets have ended those that
hang."""
Make = Callable[[int], HaproxyRouter]
"""Makes the HAProxy processes of a lane by its number; not started yet."""
_log = logging.getLogger(__name__)


class Agent:
    """One router pod of a cluster, with as many lanes as its cores are for."""

    def __init__(
        self,
        me: str,
        settings: RuntimeSettings,
        router: HaproxyRouter,
        *,
        address: str = "127.0.0.1",
        make: Make | None = None,
    ) -> None:
        """
        Args:
            me: Required. Name of this pod.
            settings: Required. Of the runtime.
            router: Required. Of the first lane; started by who made it.
            address: Optional. Of this pod.
            make: Optional. For further lanes. Default: there is one.
        """
        self.me = me
        self.settings = settings
        self.router = router
        self.leaving = False
        self._address = address
        self._make = make
        self._wake = asyncio.Event()
        self.heartbeats = Heartbeats(me, self._wake.set)
        self.known = Known(settings, self._wake.set)
        self._bases = routing.Bases()
        self.lanes: dict[int, Lane] = {0: self._lane(me, router)}
        """By number; those that leave stay until their last request is over."""
        self._changing: dict[int, asyncio.Task[None]] = {}
        """Lanes that begin or end."""
        self._rounds: dict[str, asyncio.Task[bool]] = {}
        """Of several lanes, by name: those under way."""
        self._again_at = 0.0
        self._end_again_at = 0.0
        self._owner_changes = 0
        """Of lanes that are gone."""
        self._answers: Counter[AnswerKey] = Counter()

    @property
    def ready(self) -> bool:
        """Whether clients may be sent here."""
        return self.lanes[0].ready and not self.leaving

    @property
    def generations(self) -> Mapping[str, int]:
        """Endpoint → the newest generation that is served whole by every lane."""
        first, *others = (lane.generations for lane in self.lanes.values() if lane.ready or lane.name == self.me)
        if not others:
            return first
        return {name: min(number, *(one.get(name, 0) for one in others)) for name, number in first.items()}

    @property
    def unserved(self) -> Mapping[str, str]:
        """Why endpoints are not served as they are declared, by name; of several lanes that say so the last."""
        return {name: why for lane in self.lanes.values() for name, why in lane.unserved.items()}

    @property
    def owner_changes(self) -> int:
        """Endpoints that a lane took or let go."""
        return self._owner_changes + sum(lane.owner_changes for lane in self.lanes.values())

    @property
    def held(self) -> int:
        """Endpoints that are held here."""
        return sum(len(lane.sharing.held) for lane in self.lanes.values())

    @property
    def answers(self) -> Mapping[AnswerKey, int]:
        """What HAProxy answered itself, since the agent began."""
        return sum((Counter(lane.router.answers) for lane in self.lanes.values()), self._answers)

    def load(self) -> reports.Loads:
        """The figures of all lanes."""
        if len(self.lanes) == 1:
            return self.router.load()
        return reports.together(lane.router.load() for lane in self.lanes.values())

    async def run(self, api: Api, session: aiohttp.ClientSession) -> None:
        """Until cancelled. What it learns first: the API server's objects, then the other routers, then it is ready."""
        failures = Failures(_log, "a round failed; it is tried again")
        async with asyncio.TaskGroup() as tasks:
            for informer in self.known.informers:
                tasks.create_task(informer.run(api))
            await asyncio.gather(*(informer.first() for informer in self.known.informers))
            while True:
                self._wake.clear()
                try:
                    self._fit()
                    moving = await self.step(session)
                except Exception as error:  # noqa: BLE001 - what serves goes on serving; the next round tries again
                    failures.tell(error)
                    moving = True
                try:
                    async with asyncio.timeout(MOVING_S if moving else STEP_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def step(self, session: aiohttp.ClientSession) -> bool:
        """One round of every lane; True while something is on the move. Raises what a lane's round ended with."""
        others = {pod.name: pod.address for pod in self.known.pods.items.values() if pod.name != self.me}
        port = self.settings.agent_port
        self.heartbeats.listen(session, {name: objects.url(address, port) for name, address in others.items()})
        if len(self.lanes) == 1 and not self._rounds:
            return await self.lanes[0].step(self.known)
        for lane in self.lanes.values():
            if lane.name not in self._rounds:
                self._rounds[lane.name] = asyncio.create_task(lane.step(self.known))
        # One whose processes hang has its round under way meanwhile.
        await asyncio.wait(self._rounds.values(), timeout=STEP_S)
        over = [self._rounds.pop(name) for name, task in tuple(self._rounds.items()) if task.done()]
        # All of them first: one that failed keeps no other one from being looked at.
        failed = [error for task in over if (error := task.exception()) is not None]
        if failed:
            raise failed[0]
        return bool(self._rounds) or any(task.result() for task in over)

    def leave(self) -> None:
        """Wants no endpoint any more; those that it has go to others."""
        self.leaving = True
        for lane in self.lanes.values():
            lane.leaving = True
        self._wake.set()

    @property
    def left(self) -> bool:
        """Whether others have all, or there are none."""
        own = {lane.name for lane in self.lanes.values()}
        return self.heartbeats.view().live <= own or not self.held

    async def finish(self) -> None:
        """Takes no new connections; returns when all requests that are here are over."""
        await asyncio.gather(*(lane.router.finish() for lane in self.lanes.values()))

    async def close(self) -> None:
        """Ends all processes; what is under way is lost."""
        tasks = (*self._changing.values(), *self._rounds.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.heartbeats.close()
        await asyncio.gather(*(lane.router.stop() for lane in self.lanes.values()))

    # --- lanes

    @property
    def wanted(self) -> int:
        """Lanes that the pod's cores are for, and that other routers have room for."""
        cpu_m = next((pod.cpu_m for pod in self.known.pods.items.values() if pod.name == self.me), 0)
        # One pod more than there may be while they are replaced, perhaps by pods that never had several.
        pods = self.settings.router_max_pods
        room = min((LANE_PEERS + 1) // (pods + 1), MAX_PEERS // pods)
        return max(1, min(router_lanes(cpu_m), room))

    def _fit(self) -> None:
        """Begins or ends a lane where there are too few or too many; one at a time begins."""
        now = asyncio.get_running_loop().time()
        for number, task in tuple(self._changing.items()):
            if task.done():
                del self._changing[number]
                if task.exception() is not None and number in self.lanes:
                    self._end_again_at = now + AGAIN_S
                # A lane that could not end well must not be taken for one that serves.
                task.result()
        if self._make is None or self.leaving:
            return
        staying = [number for number, lane in self.lanes.items() if not lane.leaving]
        beginning = [number for number in self._changing if number not in self.lanes]
        # Each has a port of its own: one that still leaves keeps its number.
        free = [number for number in range(MOST_LANES) if number not in self.lanes]
        if len(staying) < self.wanted and free and not beginning and now >= self._again_at:
            self._again_at = now + AGAIN_S
            self._changing[free[0]] = asyncio.create_task(self._begin(free[0], self._make))
        elif len(staying) > self.wanted:
            self.lanes[max(staying)].leaving = True
        for number, lane in self.lanes.items():
            if lane.leaving and number not in self._changing and now >= self._end_again_at:
                self._changing[number] = asyncio.create_task(self._end(number))

    def _lane(self, name: str, router: HaproxyRouter) -> Lane:
        return Lane(name, self._address, self.settings, router, self.heartbeats, self._bases)

    async def _begin(self, number: int, make: Make) -> None:
        name = lane_name(self.me, number)
        router = make(number)
        try:
            await router.start()
        except (AksInferenceError, OSError) as error:
            _log.error("lane %s could not be started; it is tried again: %s", name, error)
            await router.stop()
            return
        except BaseException:
            await router.stop()
            raise
        if self.leaving:
            await router.stop()
            return
        self._again_at = 0.0
        _log.info("lane %s begins", name)
        self.lanes[number] = self._lane(name, router)
        self._wake.set()

    def _all_without(self, lane: Lane) -> bool:
        """Whether every other router, heard or not, is known to send no more to a lane that has left."""
        pods = {pod.name for pod in self.known.pods.items.values()} - {self.me}
        view = lane.view
        return view.agreed and pods <= {pod_of(name) for name in view.live}

    async def _end(self, number: int) -> None:
        lane = self.lanes[number]
        _log.info("lane %s leaves: its endpoints go to other routers", lane.name)
        # However long: there is always another one that stays.
        while lane.sharing.held:
            if self.leaving:
                return
            await asyncio.sleep(MOVING_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNHEARD_S):
                while not self._all_without(lane):  # noqa: ASYNC110 - its rounds tell
                    await asyncio.sleep(MOVING_S)
        await asyncio.sleep(LATE_S)
        await lane.router.finish()
        await lane.end()
        del self.lanes[number]
        self._owner_changes += lane.owner_changes
        self._answers.update(lane.router.answers)
        self.heartbeats.forget(lane.name)
        self._wake.set()
