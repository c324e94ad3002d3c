"""The routers' own scale: looked at, decided and written by the leading autoscaler."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import (
    AUTOSCALER_NAME,
    COMPONENT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    ROUTER_NAME,
    RuntimeSettings,
)
from aks_inference_runtime.autoscaler.routers import (
    NO_ROOM,
    Decision,
    Figures,
    Memory,
    Present,
    Room,
    RouterRules,
    Size,
    step,
)
from aks_inference_runtime.kubernetes import objects
from aks_inference_runtime.kubernetes.client import STRATEGIC, Api, Object
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.quantities import quantity
from aks_inference_runtime.kubernetes.room import Amounts, Node, PodNeed, requests_of
from aks_inference_runtime.kubernetes.telling import LONGEST_NOTE, REPORTER

LOOK_S = 0.5
PENDING_S = 5.0
"""What was written and is not seen by then is written again."""
CONTAINER = "router"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RouterPlace:
    """A router's pod as far as scaling goes."""

    name: str
    address: str
    node: str
    cpu_m: int
    ready: bool
    waits: str
    """Why its new size is not in force: the node has no room now, or never. Empty: it is, or will be at once."""


@dataclass(frozen=True)
class RouterDeployment:
    """The routers' Deployment."""

    uid: str
    replicas: int
    need: Amounts
    """Of a new pod."""
    selector: Mapping[str, str]
    """Labels of the nodes that its pods may run on."""


class Nodes(Protocol):
    """What the nodes hold."""

    def there(self) -> Iterable[Node]:
        """All nodes."""

    def needs(self) -> list[PodNeed]:
        """What all pods take."""

    def room_for(self, need: Amounts, selector: Mapping[str, str]) -> int:
        """Further pods of this need and selector of nodes that fit."""

    def other_scaler(self, namespace: str, name: str) -> str | None:
        """The HorizontalPodAutoscaler of a Deployment."""


def place_of(found: Object) -> RouterPlace | None:
    """A router's pod that is not over and not leaving."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    if metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    pending = conditions.get("PodResizePending", {})
    waits = f"{pending.get('reason', '')}: {pending.get('message', '')}" if pending.get("status") == "True" else ""
    return RouterPlace(
        name=metadata["name"],
        address=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        cpu_m=_cpu_m(spec),
        ready=conditions.get("Ready", {}).get("status") == "True",
        waits=waits,
    )


def deployment_of(found: Object) -> RouterDeployment:
    """The routers' Deployment."""
    spec, uid = found["spec"], found["metadata"]["uid"]
    pod = spec["template"]["spec"]
    return RouterDeployment(uid, int(spec.get("replicas", 1)), requests_of(pod), pod.get("nodeSelector") or {})


def rules_of(settings: RuntimeSettings) -> RouterRules:
    """Bounds, threshold and delays."""
    return RouterRules(
        least=Size(settings.router_min_pods, round(settings.router_min_cores * 1000)),
        most=Size(settings.router_max_pods, round(settings.router_max_cores * 1000)),
        threshold_ms=settings.router_latency_threshold_ms,
        down_delay_s=settings.router_scale_down_delay_s,
        up_delay_s=settings.router_scale_up_delay_s,
    )


def room_to_grow(places: Iterable[RouterPlace], nodes: Iterable[Node], needs: Iterable[PodNeed]) -> int:
    """Thousandths of a core: the most that every pod could ask for on its node, all of them at once. One without a node
    keeps the others from nothing: it begins with the template's cores."""
    free = {node.name: node.allocatable.get("cpu", 0.0) for node in nodes}
    for need in needs:
        if need.node in free:
            free[need.node] -= need.requests.get("cpu", 0.0)
    places = [place for place in places if place.node]
    shared = Counter(place.node for place in places)
    # The tolerance is for sums of requests such as 0.1.
    return min((p.cpu_m + int(1000 * free.get(p.node, 0.0) / shared[p.node] + 1e-6) for p in places), default=0)


def event(instance: str, namespace: str, uid: str, before: Size, decision: Decision, at: datetime) -> Object:
    """A change, as events.k8s.io/v1 has it. `instance`: the pod that tells."""
    note = f"{before} → {decision.size}: {decision.reason}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{ROUTER_NAME}-", "namespace": namespace},
        "eventTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "action": "RoutersScaled",
        "reason": direction(before, decision.size),
        "type": "Normal",
        "note": note if len(note) <= LONGEST_NOTE else f"{note[: LONGEST_NOTE - 1]}…",
        "reportingController": REPORTER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": ROUTER_NAME,
            "namespace": namespace,
            "uid": uid,
        },
    }


def direction(before: Size, after: Size) -> str:
    """Of a change: MoreCores, FewerCores, MorePods, FewerPods."""
    if before.pods != after.pods:
        return "MorePods" if after.pods > before.pods else "FewerPods"
    return "MoreCores" if after.cpu_m > before.cpu_m else "FewerCores"


class RouterScaler:
    """Keeps the routers as many and as large as they need to be.

    The number of pods is the Deployment's `scale`, under a field manager of its own: who applies the Deployment says
    nothing of it. Cores are the request of each pod, changed in place where the cluster can (Kubernetes 1.33), so that
    the Deployment's template stays what was applied: new pods begin with its request and are then resized.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        nodes: Nodes,
        figures: Callable[[str], Figures | None],
        leads: Callable[[], bool],
        clock: Callable[[], float],
        instance: str = "",
    ) -> None:
        """
        Args:
            settings: Required. Bounds and where the routers are.
            nodes: Required. What fits.
            figures: Required. By the URL of a router's agent.
            leads: Required. Whether this process may change anything.
            clock: Required. Seconds, monotonic.
            instance: Optional. Name of this pod, for events.
        """
        self.decision: Decision | None = None
        """The last one."""
        self.changes: Counter[str] = Counter()
        """By direction."""
        self._settings = settings
        self._nodes = nodes
        self._figures = figures
        self._leads = leads
        self._clock = clock
        self._instance = instance
        self._rules = rules_of(settings)
        self._memory = Memory()
        self._pending: tuple[Size, float] | None = None
        self._tried: dict[tuple[str, int], float] = {}
        """Pods that were resized lately, to what, and when."""
        self._resizable: bool | None = None
        """None: to be asked."""
        self._owned = False
        """Whether the scale was written once since this process leads: its field is then this manager's, too."""
        namespace = settings.namespace

        def quiet() -> None:
            """What is known is looked at every round."""

        self.deployment = Informer(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            deployment_of,
            quiet,
            fields=f"metadata.name={ROUTER_NAME}",
        )
        self.places = Informer(
            f"/api/v1/namespaces/{namespace}/pods",
            place_of,
            quiet,
            labels=f"{PART_OF_LABEL}={PART_OF},{COMPONENT_LABEL}={ROUTER_COMPONENT}",
        )

    @property
    def listed(self) -> bool:
        """Whether everything was read once."""
        return self.deployment.listed and self.places.listed

    async def run(self, api: Api) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.deployment.run(api))
            tasks.create_task(self.places.run(api))
            while True:
                await asyncio.sleep(LOOK_S)
                if not self._leads():
                    # A cluster that was upgraded meanwhile may resize pods in place.
                    self._memory, self._owned, self._resizable, self.decision = Memory(), False, None, None
                elif self.listed:
                    try:
                        await self.look(api)
                    except AksInferenceError as error:
                        _log.warning("routers are not scaled: %s", error)
                    except Exception:  # noqa: BLE001 - the routers' scale must not end the autoscaler of all models
                        _log.exception("routers are not scaled; it is tried again")

    async def look(self, api: Api) -> None:
        """One look; writes what follows from it. Raises OperationFailed, RuntimeUnavailable."""
        deployment = next(iter(self.deployment.items.values()), None)
        if deployment is None:
            self.decision = None
            return
        if (other := self._nodes.other_scaler(self._settings.namespace, ROUTER_NAME)) is not None:
            why = f"the HorizontalPodAutoscaler {other} scales the routers"
            self._say(Decision(Size(deployment.replicas, 0), why, why))
            return
        if self._resizable is None:
            self._resizable = await _can_resize(api)
        places = tuple(self.places.items.values())
        present = self._present(deployment, places)
        room = NO_ROOM if self._memory.slow_since is None else self._room(deployment, places, present.size)
        self._memory, decision = step(self._memory, self._clock(), present, self._rules, room)
        self._say(decision)
        if decision.size != present.size:
            self._pending = decision.size, self._clock()
            self.changes[direction(present.size, decision.size)] += 1
            _log.info("routers: %s → %s: %s", present.size, decision.size, decision.reason)
        if decision.size.pods != deployment.replicas or not self._owned:
            await self._write_scale(api, decision.size.pods)
        await self._resize(api, places, decision.size.cpu_m)
        if decision.size != present.size:
            await self._tell(api, deployment, present.size, decision)

    def _say(self, decision: Decision) -> None:
        before, self.decision = self.decision, decision
        if before is None or (before.size == decision.size and before.held != decision.held):
            _log.info("routers: %s: %s", decision.size, decision.reason)

    def _present(self, deployment: RouterDeployment, places: Iterable[RouterPlace]) -> Present:
        ready = [place for place in places if place.ready and place.address]
        port = self._settings.agent_port
        told = {place.name: self._figures(objects.url(place.address, port)) for place in ready}
        cpu_m = max((place.cpu_m for place in places), default=0) or self._rules.least.cpu_m
        size = Size(deployment.replicas, cpu_m if self._resizable else self._rules.least.cpu_m)
        if self._pending is not None:
            wanted, at = self._pending
            if size == wanted or self._clock() - at > PENDING_S:
                self._pending = None
            else:
                size = wanted
        heard = [one for one in told.values() if one is not None]
        return Present(size, len(ready), heard, [name for name, one in told.items() if one is None])

    def _room(self, deployment: RouterDeployment, places: Iterable[RouterPlace], size: Size) -> Room:
        pods = self._nodes.room_for({**deployment.need, "cpu": size.cpu_m / 1000}, deployment.selector)
        if not self._resizable:
            return Room(pods, 0)
        if any(place.waits for place in places):
            return Room(pods, size.cpu_m)
        return Room(pods, room_to_grow(places, self._nodes.there(), self._nodes.needs()))

    async def _write_scale(self, api: Api, pods: int) -> None:
        namespace = self._settings.namespace
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": ROUTER_NAME, "namespace": namespace},
            "spec": {"replicas": pods},
        }
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{ROUTER_NAME}/scale"
        # Applied, so that the field is ours even where the number is right already.
        await api.apply(path, body, AUTOSCALER_NAME)
        self._owned = True

    async def _resize(self, api: Api, places: Iterable[RouterPlace], cpu_m: int) -> None:
        """A pod whose node has no room now is asked for again; the kubelet has the last word."""
        now = self._clock()
        self._tried = {tried: at for tried, at in self._tried.items() if 0 <= now - at < PENDING_S}
        for place in places:
            over = place.cpu_m in (cpu_m, 0) or not place.ready or (place.name, cpu_m) in self._tried
            if over or not self._resizable:
                continue
            if cpu_m > place.cpu_m and cpu_m > room_to_grow([place], self._nodes.there(), self._nodes.needs()):
                continue
            self._tried[place.name, cpu_m] = now
            resources = {"requests": {"cpu": f"{cpu_m}m"}}
            body = {"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}}
            path = f"/api/v1/namespaces/{self._settings.namespace}/pods/{place.name}/resize"
            try:
                await api.patch(path, body, STRATEGIC)
            except AksInferenceError as error:
                _log.warning("router %s is not resized: %s", place.name, error)

    async def _tell(self, api: Api, deployment: RouterDeployment, before: Size, decision: Decision) -> None:
        namespace = self._settings.namespace
        body = event(self._instance, namespace, deployment.uid, before, decision, datetime.now(UTC))
        try:
            await api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
        except AksInferenceError as error:
            _log.warning("no event for %s: %s", ROUTER_NAME, error)


async def _can_resize(api: Api) -> bool:
    found = await api.get("/api/v1")
    return any(one.get("name") == "pods/resize" for one in found.get("resources") or ())


def _cpu_m(spec: Mapping[str, object]) -> int:
    """Of the router's container; 0: it asks for none."""
    containers = spec.get("containers")
    for container in containers if isinstance(containers, list) else ():
        if container.get("name") == CONTAINER:
            asked = ((container.get("resources") or {}).get("requests") or {}).get("cpu")
            return 0 if asked is None else round(quantity(asked) * 1000)
    return 0
