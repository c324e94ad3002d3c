"""A job on Kubernetes: made, followed, its results fetched through the API server, and removed, however it ends."""

import asyncio
import contextlib
import secrets
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.errors import AksInferenceError, NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.jobs import manifests, saving
from aks_inference_runtime.jobs.keeper import PORT, TOKEN_HEADER
from aks_inference_runtime.jobs.manifests import LABEL, TRAINING, Object, Pod
from aks_inference_runtime.jobs.model import LOG, Job, JobFailed, Result, Say, ended, failure
from aks_inference_runtime.kubernetes.client import Api

LOOK_S = 1.0
PATIENCE_S = 120.0
"""An API server that is away that long is given up, and with it the run."""
_HOPELESS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})
_HOPELESS_S = 60.0
"""Of a reason that may still pass: registries have bad minutes."""


async def run_on_cluster(api: Api, job: Job, pod: Pod, say: Say, progress: Callable[[str], None]) -> Result:
    """Runs it to its end. Raises JobFailed, OperationFailed, RuntimeUnavailable. Cancelled, the Job goes; where this
    process is killed, the cluster removes it after its longest time."""
    begin = time.monotonic()
    part = await asyncio.to_thread(saving.begin, job)
    jobs = f"/apis/batch/v1/namespaces/{pod.namespace}/jobs"
    run = _Run(api, job, pod, say, part)
    code: int | None = None
    try:
        token = secrets.token_urlsafe(24)
        made = await api.create(jobs, manifests.manifest(job, pod))
        secret = manifests.secret(job, pod, token, manifests.owner(made))
        await api.create(f"/api/v1/namespaces/{pod.namespace}/secrets", secret)
        name = await run.started(progress)
        progress(f"runs {job.entry_script} in pod {name}")
        code = await run.followed(name)
        progress("fetches its results")
        await run.fetch(name, token)
    finally:
        await asyncio.shield(_remove(api, f"{jobs}/{job.run_id}"))
        seconds = time.monotonic() - begin
        await asyncio.shield(asyncio.to_thread(saving.finish, job, part, code, seconds))
    if (wrong := run.judged(code)) is not None:
        raise wrong
    return Result(job.place, seconds)


class _Run:
    """One run under way."""

    def __init__(self, api: Api, job: Job, pod: Pod, say: Say, part: Path) -> None:
        self._api, self._job, self._pod, self._say, self._part = api, job, pod, say, part
        self._pods = f"/api/v1/namespaces/{pod.namespace}/pods"
        self._lines: list[str] = []
        self._until = time.monotonic() + job.longest_s

    async def started(self, progress: Callable[[str], None]) -> str:
        """The pod's name, once the script's container runs or has run."""
        hopeless: float | None = None
        async for found in self._looks(None):
            state = container_state(found, TRAINING)
            if "running" in state or "terminated" in state:
                return str(found["metadata"]["name"])
            waiting = state.get("waiting") or {}
            reason = str(waiting.get("reason", "")) or unschedulable(found)
            progress(f"waits: {reason or 'a pod is being made'}")
            hopeless = (hopeless or time.monotonic()) if reason in _HOPELESS else None
            if hopeless is not None and time.monotonic() - hopeless > _HOPELESS_S:
                raise OperationFailed(f"the job's pod cannot start: {reason}: {waiting.get('message', '')}")
        raise failure(self._job, None, "the job never started", [])

    async def followed(self, name: str) -> int | None:
        """The exit code; None: it took too long. The log goes to its file and to whoever listens."""
        log = asyncio.create_task(self._log(name))
        try:
            async for found in self._looks(name):
                ended_as = container_state(found, TRAINING).get("terminated")
                if ended_as is not None:
                    await log
                    return int(ended_as["exitCode"])
            return None
        finally:
            log.cancel()
            await asyncio.gather(log, return_exceptions=True)

    def judged(self, code: int | None) -> JobFailed | None:
        """What it means."""
        if code is None:
            text = f"`{self._job.entry_script}` was ended after {self._job.longest_s / 60:g} minutes"
            return failure(self._job, None, text, self._lines)
        return ended(self._job, code, self._lines)

    async def fetch(self, name: str, token: str) -> None:
        """The kept folders, from the container beside the script's."""
        proxy = f"{self._pods}/{name}:{PORT}/proxy"
        archive = self._part / ".results.tar"
        headers = {TOKEN_HEADER: token}
        await _patiently(lambda: self._api.download(f"{proxy}/results", archive, headers))
        await asyncio.to_thread(_unpack, archive, self._part)
        with contextlib.suppress(AksInferenceError):
            await self._api.call(f"{proxy}/done", headers)

    async def _looks(self, name: str | None) -> AsyncIterator[Object]:
        """The pod, again and again, until the longest time is over."""
        query = {"labelSelector": f"{LABEL}={self._job.run_id}"}
        while time.monotonic() < self._until:
            listed = await _patiently(lambda: self._api.get(self._pods, **query))
            items = listed.get("items") or []
            if items:
                yield items[0]
            elif name is not None:
                raise OperationFailed(f"the job's pod {name} was removed while it ran")
            await asyncio.sleep(LOOK_S)

    async def _log(self, name: str) -> None:
        """To its end; begun again where it broke, without what was told."""
        told = 0
        with (self._part / LOG).open("ab", buffering=0) as file:
            while True:
                seen = 0
                with contextlib.suppress(RuntimeUnavailable):
                    async for text in self._api.lines(f"{self._pods}/{name}/log", container=TRAINING, follow="true"):
                        seen += 1
                        if seen <= told:
                            continue
                        told += 1
                        file.write(f"{text}\n".encode())
                        self._lines.append(text)
                        del self._lines[:-200]
                        self._say(text)
                    return
                await asyncio.sleep(LOOK_S)


async def _patiently(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - what was asked for
    """An answer, also where the API server is away for a while. Raises RuntimeUnavailable after PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await ask()
        except RuntimeUnavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(LOOK_S)


async def _remove(api: Api, path: str) -> None:
    """With its pod and its Secret, and waits until it is gone, so that nothing runs on."""
    until = time.monotonic() + PATIENCE_S
    await _patiently(lambda: api.delete(path, propagationPolicy="Foreground", gracePeriodSeconds="5"))
    while time.monotonic() < until:
        try:
            await _patiently(lambda: api.get(path))
        except NotFound:
            return
        await asyncio.sleep(LOOK_S / 2)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise OperationFailed(f"the job's results did not arrive whole: {error}") from None
    finally:
        archive.unlink(missing_ok=True)


def container_state(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`waiting`, `running` or `terminated` of a container; empty: nothing is known yet."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((dict(one.get("state") or {}) for one in statuses if one["name"] == name), {})


def unschedulable(pod: Mapping[str, Any]) -> str:
    """Why no node takes it; empty: one does."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""
