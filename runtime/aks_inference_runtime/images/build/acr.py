"""Building in Azure: a quick run of ACR Tasks, from the generated build file, without a build tool on this machine.

Source: Microsoft.ContainerRegistry 2019-06-01-preview (listBuildSourceUploadUrl, scheduleRun, runs): the context goes
to the registry's own storage by a signed address, the log comes from there while the run goes on.
"""

import asyncio
import contextlib
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits
from aks_inference_runtime.azure.arm import Arm, AzureFailed, Credentials, credentials_of
from aks_inference_runtime.images.build.choose import NOT_AZURE, Builder
from aks_inference_runtime.images.build.run import TAIL_LINES, Progress
from aks_inference_runtime.images.build.run_log import RunLog
from aks_inference_runtime.images.build.tools import write_context
from aks_inference_runtime.images.environment.key import base_references
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.credentials import Login

TASKS_API = "2019-06-01-preview"
REGISTRY_API = "2025-04-01"
"""The first stable one that says by which roles a registry goes (`roleAssignmentMode`)."""
RUN_TIMEOUT_S = 3600
"""Azure's own default of a run; at most 28,800."""
CANCEL_S = 15.0
LOOKS = 10
"""At a run, before an Azure that does not answer is given up."""
UPLOAD_S = 1800.0
DOCKERFILE = ".aks-inference.Containerfile"
"""In the archive, where no file of the context has that name."""
ENDED = frozenset({"Succeeded", "Failed", "Canceled", "Error", "Timeout"})
_HOST = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.azurecr\.(?:io|us|cn)", re.IGNORECASE)
_RESOURCE = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ContainerRegistry/registries/[A-Za-z0-9]{5,50}",
    re.IGNORECASE,
)
_MENDS = {
    "TasksOperationsNotAllowed": "this subscription may not use ACR Tasks (those with free credits may not); choose "
    "another builder",
    "AuthorizationFailed": "give this identity the role Contributor at the registry, or one with "
    "Microsoft.ContainerRegistry/registries/scheduleRun/action and listBuildSourceUploadUrl/action",
}


@dataclass(frozen=True)
class AzureBuild:
    """Who asks Azure, and for which registry."""

    credentials: Credentials
    resource_id: str | None = None
    """Optional. Of the registry. Default: looked up by its name in the subscription."""
    limits: ContextLimits = AZURE_ML
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    poll_s: float = 2.0

    def cannot(self, registry: str) -> str:
        """Why ACR Tasks cannot build for a registry; empty when they can. Asks nobody."""
        if self.resource_id is None and not of_azure(registry):
            return NOT_AZURE
        if not self.credentials.usable:
            return "there are no Azure credentials: set ARM_CLIENT_ID, …, or sign in with the Azure CLI"
        return ""


def azure_build(
    environment: Mapping[str, str], wanted: Builder, resource_id: str | None, limits: ContextLimits = AZURE_ML
) -> AzureBuild | None:
    """Who asks Azure, by the variables; None where the wanted builder is another one.

    Raises AzureFailed for variables that Azure is not to be asked with, where it was wanted by name.
    """
    if wanted not in {Builder.AUTO, Builder.ACR_TASKS}:
        return None
    try:
        return AzureBuild(credentials_of(environment), resource_id, limits)
    except AzureFailed:
        if wanted == Builder.ACR_TASKS:
            raise
        return None


def of_azure(registry: str) -> bool:
    """Whether a host's name is one of Azure's registries."""
    return _HOST.fullmatch(registry) is not None


def resource_problem(resource_id: str) -> str:
    """What is wrong with the id of a registry; empty when nothing is."""
    form = "/subscriptions/…/resourceGroups/…/providers/Microsoft.ContainerRegistry/registries/NAME"
    return "" if _RESOURCE.fullmatch(resource_id) else f"is not the id of a registry ({form})"


async def build_in_azure(
    build: AzureBuild,
    definition: EnvironmentDefinition,
    target: ImageReference,
    pins: Mapping[str, str],
    logins: Mapping[str, Login],
    progress: Progress,
    *,
    refresh: bool = False,
) -> None:
    """Builds and pushes an image under the target's tag. Cancelled, or failing itself, it cancels the run.

    `logins`: only those of the registries that the definition builds on leave this machine, in the request alone.

    Raises:
        BuildFailed: the run ended badly; with the end of its log.
        AzureFailed: Azure refused it.
    """
    with tempfile.TemporaryDirectory(prefix="aks-inference-build-") as name:
        archive = await asyncio.to_thread(_archive, Path(name), definition, pins, build.limits)
        try:
            async with Arm(build.credentials) as azure:
                registry = await _registry(azure, build.resource_id, target.registry)
                identity = str(registry["id"])
                source = await _send(azure, identity, archive, progress)
                request = run_request(registry, definition, target, source, logins, refresh=refresh)
                run = await azure.post(f"{identity}/scheduleRun", TASKS_API, request)
                await _Run(azure, build, identity, str(_properties(run)["runId"]), _secrets(logins), progress).follow()
        except AzureFailed as error:
            if mend := _MENDS.get(error.code):
                raise AzureFailed(f"{error}; {mend}", error.status, error.code) from None
            raise


def run_request(
    registry: Mapping[str, Any],
    definition: EnvironmentDefinition,
    target: ImageReference,
    source: str,
    logins: Mapping[str, Login],
    *,
    refresh: bool = False,
) -> dict[str, Any]:
    """The body of scheduleRun. Pure."""
    by_repository = _properties(registry).get("roleAssignmentMode") == "AbacRepositoryPermissions"
    hosts = {one.registry for one in base_references(definition)} - {target.registry}
    if definition.base_login is not None:
        hosts.add(definition.base_login.address)
    given = {host: logins[host] for host in sorted(hosts) if host in logins and logins[host].password}
    return {
        "type": "DockerBuildRequest",
        "imageNames": [f"{target.repository}:{target.tag}"],
        "isPushEnabled": True,
        "noCache": refresh,
        "sourceLocation": source,
        "dockerFilePath": DOCKERFILE,
        "platform": {"os": "Linux", "architecture": definition.platform.architecture},
        "timeout": RUN_TIMEOUT_S,
        "credentials": {
            # In such a registry a run has no rights of its own: it acts as the one who asks for it.
            "sourceRegistry": {"identity": "[caller]"} if by_repository else {"loginMode": "Default"},
            "customRegistries": {
                host: {"userName": _opaque(login.username), "password": _opaque(login.password)}
                for host, login in given.items()
            },
        },
    }


def _opaque(value: str) -> dict[str, str]:
    return {"type": "Opaque", "value": value}


def _archive(folder: Path, definition: EnvironmentDefinition, pins: Mapping[str, str], limits: ContextLimits) -> Path:
    context, file = write_context(folder, definition, pins, limits)
    path = folder / "source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for one in sorted(context.rglob("*")):
            tar.add(one, one.relative_to(context).as_posix(), recursive=False)
        tar.add(file, DOCKERFILE)
    return path


async def _registry(azure: Arm, resource_id: str | None, host: str) -> Mapping[str, Any]:
    """The registry's own description. Raises AzureFailed."""
    if resource_id is not None:
        found = await azure.get(resource_id, REGISTRY_API)
        if found is None:
            raise AzureFailed(f"{resource_id}: no such registry, or no right to see it", 404)
        server = str(_properties(found).get("loginServer") or "")
        if server.lower() != host.lower():
            raise AzureFailed(f"{resource_id} is the registry {server}, not {host}; change one of the two")
        return found
    if not azure.subscription:
        raise AzureFailed("the subscription is not known: set ARM_SUBSCRIPTION_ID, or give the registry's resource id")
    path = f"/subscriptions/{azure.subscription}/providers/Microsoft.ContainerRegistry/registries"
    for one in await azure.listed(path, REGISTRY_API):
        if str(_properties(one).get("loginServer") or "").lower() == host.lower():
            return one
    raise AzureFailed(
        f"{host} is not in the subscription {azure.subscription}, or there is no right to see it; give its resource id"
    )


async def _send(azure: Arm, identity: str, archive: Path, progress: Progress) -> str:
    """Sends the context; gives its place as scheduleRun takes it. The signed address is in no text."""
    place = await azure.post(f"{identity}/listBuildSourceUploadUrl", TASKS_API)
    url, relative = place.get("uploadUrl"), place.get("relativePath")
    if not isinstance(url, str) or not isinstance(relative, str):
        raise AzureFailed(f"{identity}: gives no place to upload a context to")
    size = (await asyncio.to_thread(archive.stat)).st_size
    progress(f"sending the build context ({size / 1e6:.2f} MB)")
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(size), "Content-Type": "application/gzip"}
    timeout = aiohttp.ClientTimeout(total=UPLOAD_S)
    try:
        with archive.open("rb") as content:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.put(url, data=content, headers=headers) as answer,
            ):
                if answer.status != 201:
                    code = answer.headers.get("x-ms-error-code", "")
                    raise AzureFailed(f"the storage of the registry refuses the context: {answer.status} {code}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AzureFailed(f"the storage of the registry does not answer ({type(error).__name__})") from None
    return relative


@dataclass(frozen=True)
class _Run:
    """A run under way."""

    azure: Arm
    build: AzureBuild
    registry: str
    id: str
    secrets: Sequence[str]
    progress: Progress

    async def follow(self) -> None:
        """To its end. Raises BuildFailed when that is a bad one."""
        name = self.registry.rsplit("/", 1)[-1]
        self.progress(f"run {self.id} of {name}: queued")
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            status = await self._to_its_end(tail)
        except BaseException:
            await self._cancel()
            raise
        if status != "Succeeded":
            log = "\n".join(tail) or f"(no log; az acr task logs --registry {name} --run-id {self.id})"
            raise BuildFailed(f"run {self.id} of {name}: {status.lower()}; the end of its log:\n{log}")

    async def _to_its_end(self, tail: deque[str]) -> str:
        said = "Queued"
        async with RunLog(self._log_address) as log:
            while True:
                status = str(_properties(await self._now()).get("status") or "")
                if status != said and status not in ENDED:
                    self.progress(f"run {self.id}: {status.lower()}")
                    said = status
                for line in await log.more(last=status in ENDED):
                    shown = self._without_secrets(line)
                    tail.append(shown)
                    self.progress(shown)
                if log.trouble:
                    self.progress(f"run {self.id}: its log cannot be read ({log.trouble}); waiting for its end")
                if status in ENDED:
                    return status
                await self.build.sleep(self.build.poll_s)

    async def _now(self) -> Mapping[str, Any]:
        """As it is. A build of many minutes does not end with one answer that was lost."""
        for left in reversed(range(LOOKS)):
            try:
                found = await self.azure.get(f"{self.registry}/runs/{self.id}", TASKS_API)
            except AzureFailed as error:
                if not left or 400 <= error.status < 500:
                    raise
                await self.build.sleep(self.build.poll_s)
                continue
            if found is not None:
                return found
            break
        raise AzureFailed(f"{self.registry}: the run {self.id} is gone", 404)

    async def _log_address(self) -> str:
        try:
            found = await self.azure.post(f"{self.registry}/runs/{self.id}/listLogSasUrl", TASKS_API)
        except AzureFailed:
            return ""  # told as a log that cannot be read; the run goes on without it
        return str(found.get("logLink") or "")

    def _without_secrets(self, line: str) -> str:
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return line

    async def _cancel(self) -> None:
        """Kindly and shortly: what goes on in Azure does no harm, and is found by the next look-up."""
        path = f"{self.registry}/runs/{self.id}/cancel"
        with contextlib.suppress(AzureFailed, TimeoutError):
            await asyncio.wait_for(self.azure.post(path, TASKS_API), CANCEL_S)
            self.progress(f"run {self.id}: cancelled")


def _properties(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = body.get("properties")
    return found if isinstance(found, Mapping) else {}


def _secrets(logins: Mapping[str, Login]) -> Sequence[str]:
    return [login.password for login in logins.values() if login.password]
