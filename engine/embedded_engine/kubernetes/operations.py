"""Create, update, read and delete of one object, with the waits."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from embedded_engine.kubernetes import objects
from embedded_engine.kubernetes.client import Client, Kind
from embedded_engine.kubernetes.errors import KubernetesError, RefusedError, UnknownKindError
from embedded_engine.kubernetes.readiness import Stage, look, pod_trouble

Object = dict[str, Any]
Tell = Callable[[str], None]

DEFAULT_LIMIT_S = 600.0
CONFLICT = 409
_OF_THE_OBJECT = frozenset((CONFLICT, 422))
_FIRST_LOOK_S, _SLOWEST_LOOK_S = 0.1, 2.0
_WITH_PODS = frozenset(("Deployment", "StatefulSet", "DaemonSet", "Job"))


class NotReadyError(KubernetesError):
    """It is there, but it did not become ready. `live` is how it was last seen."""

    def __init__(self, live: Object, message: str) -> None:
        super().__init__(message)
        self.live = live


@dataclass(frozen=True)
class Target:
    """One object at the server."""

    kind: Kind
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Of the object."""
        return self.kind.path(self.namespace, self.name)

    @property
    def id(self) -> str:
        """As the state has it."""
        return f"{self.namespace}/{self.name}" if self.kind.namespaced else self.name


async def target_of(client: Client, manifest: Object) -> Target:
    """Raises UnknownKindError."""
    kind = await client.kind(manifest["apiVersion"], manifest["kind"])
    return Target(kind, manifest["metadata"].get("namespace") or "default", objects.name_of(manifest))


async def served_version(client: Client, api_version: str, kind: str) -> str:
    """This one, or another of its group that has the kind; empty: with its definition all objects of the kind are gone.
    Raises UnknownKindError where that is not sure.
    """
    try:
        await client.kind(api_version, kind)
    except UnknownKindError:
        versions = await client.versions(api_version.rpartition("/")[0])
        for version in versions or ():
            with contextlib.suppress(UnknownKindError):
                await client.kind(version, kind)
                return version
        # A kind of the server's own may be in another group now.
        if versions is None or not objects.is_custom(api_version):
            raise
        return ""
    return api_version


async def apply(client: Client, manifest: Object, manager: str, *, dry_run: bool) -> Object:
    """Server-side apply. Fields of somebody else's are taken only where the program says so."""
    target = await target_of(client, manifest)
    force = objects.annotation(manifest, objects.PATCH_FORCE) == "true"
    try:
        return await client.apply(target.path, manifest, manager, force=force, dry_run=dry_run)
    except RefusedError as error:
        if error.status == CONFLICT and error.causes:
            raise error.with_message(objects.conflict(error.causes)) from error
        raise


async def apply_anew(client: Client, manifest: Object, manager: str, limit_s: float, tell: Tell) -> Object:
    """Applies; what is on its way out is waited for and made again, as it would take what was applied along."""
    target = await target_of(client, manifest)
    limit_s = _limit(manifest, limit_s)
    deadline = time.monotonic() + limit_s
    while True:
        try:
            live = await apply(client, manifest, manager, dry_run=False)
        except RefusedError as error:
            # Whatever an object on its way out refuses, its successor may take.
            seen = await client.read(target.path) if error.status in _OF_THE_OBJECT else None
            if seen is None or not _is_going(seen):
                raise
            live = seen
        if not _is_going(live):
            return live
        await _until_gone(client, target, live["metadata"]["uid"], deadline, limit_s, tell)


def _is_going(live: Object) -> bool:
    return bool(live["metadata"].get("deletionTimestamp"))


def _limit(manifest: Object, asked_s: float) -> float:
    """The program's, else the annotation's, else the usual one."""
    given = objects.annotation(manifest, objects.TIMEOUT)
    return asked_s or (float(given) if given.isdigit() else DEFAULT_LIMIT_S)


async def until_ready(client: Client, live: Object, limit_s: float, tell: Tell) -> Object:
    """Waits; the object as it is then. Raises NotReadyError, also at the deadline."""
    if objects.annotation(live, objects.SKIP_AWAIT) == "true":
        return live
    target = await target_of(client, live)
    limit_s = _limit(live, limit_s)
    deadline, pause = time.monotonic() + limit_s, _FIRST_LOOK_S
    what = f"{live['kind']} {target.id}"
    while True:
        found = look(live)
        if found.stage is Stage.READY:
            return live
        message = found.message
        if live["kind"] in _WITH_PODS:
            message = "\n".join(filter(None, (message, await _trouble(client, target, live))))
        if found.stage is Stage.FAILED:
            raise NotReadyError(live, f"{what} failed: {message}")
        if time.monotonic() > deadline:
            raise NotReadyError(live, f"{what} is not ready after {limit_s:g} s: {message}")
        tell(message.splitlines()[-1] if message else "")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _SLOWEST_LOOK_S)
        seen = await client.read(target.path)
        if seen is None:
            raise NotReadyError(live, f"{what} was deleted while it was waited for")
        live = seen


async def _trouble(client: Client, target: Target, live: Object) -> str:
    labels = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    if not labels:
        return ""
    pods = await client.kind("v1", "Pod")
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    listed = await client.read(pods.path(target.namespace), {"labelSelector": selector})
    return pod_trouble((listed or {}).get("items") or [])


async def delete(client: Client, manifest: Object, target: Target, limit_s: float, tell: Tell) -> None:
    """Deletes and waits until it is gone; another of the same name that somebody made meanwhile is not ours."""
    live = await client.read(target.path)
    if live is None:
        return
    uid = live["metadata"]["uid"]
    # Only where something belongs to it is there anything to wait for; a finalizer costs the others seconds.
    usual = "Foreground" if live["kind"] in _WITH_PODS else "Background"
    await client.delete(target.path, objects.annotation(manifest, objects.PROPAGATION) or usual)
    if objects.annotation(manifest, objects.SKIP_AWAIT) == "true":
        return
    limit_s = limit_s or DEFAULT_LIMIT_S
    await _until_gone(client, target, uid, time.monotonic() + limit_s, limit_s, tell)


async def _until_gone(client: Client, target: Target, uid: str, deadline: float, limit_s: float, tell: Tell) -> None:
    """Raises KubernetesError at the deadline, which is `limit_s` after the beginning."""
    pause = _FIRST_LOOK_S
    while (live := await client.read(target.path)) is not None and live["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            held = ", ".join(live["metadata"].get("finalizers") or ()) or "what belongs to it"
            raise KubernetesError(f"{target.id} is not gone after {limit_s:g} s; it waits for {held}")
        tell("is being deleted")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _SLOWEST_LOOK_S)
