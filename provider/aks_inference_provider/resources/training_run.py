"""TrainingRun: one run of a script. Another project, arguments or environment is another run; its results are files."""

import asyncio
import contextlib
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Change, Diff, Difference, changes, top
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.progress import Progress
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.folder_limits import folder_failures, limit_failures, limits_of
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.content import digest_of
from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import why_absent
from aks_inference_runtime.images.context import context_files
from aks_inference_runtime.jobs.cluster import run_on_cluster
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.jobs.local import run_local
from aks_inference_runtime.jobs.manifests import Pod
from aks_inference_runtime.jobs.model import LONGEST_S, Job, Result, command_text
from aks_inference_runtime.kubernetes.client import connected

INPUTS = (
    Field("name", Kind.STRING, "Required. Of the job; runs are named by it.", required=True),
    Field("entryScript", Kind.STRING, "Required. Python file, relative to `sourceDirectory`.", required=True),
    Field("sourceDirectory", Kind.STRING, "Required. Absolute; the project, without ignored files.", required=True),
    Field("maxMb", Kind.INTEGER, "Optional. The most that the project may hold, MB. Default: 300."),
    Field("maxFiles", Kind.INTEGER, "Optional. The most files of the project. Default: 2,000."),
    Field("arguments", Kind.STRINGS, "Optional. Of the script. Default: none."),
    Field("environmentVariables", Kind.STRING_MAP, "Optional. Of the script. Default: none.", secret=True),
    Field("pipPackages", Kind.STRINGS, "Optional. Of a run on this machine. Default: none."),
    Field("outputsDirectory", Kind.STRING, "Required. Absolute folder of this machine for the results.", required=True),
    Field("timeoutMinutes", Kind.NUMBER, "Optional. The longest that it may run. Default: 1,440.", default=1_440),
    Field("trigger", Kind.STRING, "Optional. Another text is another run. Default: none."),
    Field("image", Kind.STRING, "Optional. On Kubernetes: environment and project. Default: a process here."),
    Field("keeperImage", Kind.STRING, "Conditional. The runtime's image; required with `image`."),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: KUBECONFIG's.", secret=True),
    Field("context", Kind.STRING, "Optional. Of the kubeconfig. Default: its current one."),
    Field("namespace", Kind.STRING, "Optional. Default: default.", default="default"),
    Field("cpuCores", Kind.NUMBER, "Optional. On Kubernetes: cores that it asks for."),
    Field("memoryGb", Kind.NUMBER, "Optional. On Kubernetes: memory that it asks for, GB."),
    Field("gpuCores", Kind.INTEGER, "Optional. On Kubernetes: whole GPUs. Default: 0."),
    Field("sharedMemoryMb", Kind.INTEGER, "Optional. On Kubernetes: /dev/shm, MiB. Default: the node's."),
    Field("serviceAccount", Kind.STRING, "Optional. On Kubernetes: of its pod. Default: none."),
    Field("pullSecrets", Kind.STRINGS, "Optional. On Kubernetes: names of Secrets. Default: none."),
    Field("digest", Kind.STRING, "`sha256:<hex>` over the project's files.", computed=True),
)
OUTPUTS = (
    Field("runId", Kind.STRING, "The run's name.", required=True),
    Field("outputsPath", Kind.STRING, "Folder with what the script wrote into ./outputs.", required=True),
    Field("logPath", Kind.STRING, "File with its log.", required=True),
    Field("exitCode", Kind.INTEGER, "Always 0: another one is an error.", required=True),
    Field("seconds", Kind.NUMBER, "How long it took.", required=True),
)
RUNS = ("entryScript", "arguments", "environmentVariables", "pipPackages", "trigger", "digest", "image", "name")
"""What makes another run when it changes; how long it may take and where its pod is placed do not."""
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
"""With the run's suffix the name of a Job, whose pods' names add to it."""
_SAY_S = 0.5
_SAY_LINES = 200


def check(news: Mapping[str, Any]) -> list[Failure]:
    """All that is wrong with plain inputs, short of the files."""
    failures = check_fields(INPUTS, news) + limit_failures(news)
    name = news.get("name")
    if isinstance(name, str) and name != UNKNOWN and not _NAME.fullmatch(name):
        failures.append(Failure("name", f"{name!r} is not 1 to 40 lower-case letters, digits and dashes"))
    for key in ("sourceDirectory", "outputsDirectory"):
        path = news.get(key)
        if isinstance(path, str) and path != UNKNOWN and not Path(path).is_absolute():
            failures.append(Failure(key, f"{path!r} is not absolute; give an absolute path"))
    minutes = news.get("timeoutMinutes")
    if isinstance(minutes, int | float) and minutes <= 0:
        failures.append(Failure("timeoutMinutes", f"{minutes:g} is not above 0"))
    if news.get("image") is not None and news.get("keeperImage") is None:
        failures.append(Failure("keeperImage", "is required with image"))
    return failures


def project_files(values: Mapping[str, Any]) -> dict[str, Path]:
    """The project's files. Raises InvalidInput with all that is wrong."""
    folder, script = Path(values["sourceDirectory"]), str(values["entryScript"])
    files = context_files(folder, limits_of(values))
    if script not in files:
        rule = why_absent(folder, script)
        raise InvalidInput(f"entryScript: {script!r} {rule}; name a file relative to sourceDirectory")
    return files


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    """What has to happen, from plain inputs: only what makes another run."""
    return Diff({p: Difference(change) for p, change in changes(olds, news).items() if top(p) in RUNS})


class TrainingRun:
    """A run, as a resource. Its id is the folder of its results."""

    token = f"{PACKAGE}:index:TrainingRun"
    description = "One run of a training script, on this machine or as a Job on Kubernetes. Its results are files here."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check`; then the project's files are looked at."""
        values = plain(news)
        filled = {field.name: field.default for field in INPUTS if field.default is not None}
        failures = check(values)
        digest = UNKNOWN
        if not failures and not has_unknown([values.get("sourceDirectory"), values.get("entryScript")]):
            try:
                files = await asyncio.to_thread(project_files, values)
                digest = await asyncio.to_thread(digest_of, files)
            except InvalidInput as error:
                failures += folder_failures(error, ("entryScript",), "sourceDirectory")
        return Checked({**filled, **news, "digest": digest}, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """See `diff`; results that are gone are made again."""
        found = diff(plain(state.inputs), plain(news))
        if not found.properties and await asyncio.to_thread(_gone, state):
            return Diff({"outputsPath": Difference(Change.UPDATE, of_input=False)})
        return found

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """What came of a run is known when it has ended."""
        names = [field.name for field in OUTPUTS]
        if state is not None and not diff(plain(state.inputs), plain(inputs)).properties and not _gone(state):
            return {name: state.outputs.get(name, UNKNOWN) for name in names}
        return dict.fromkeys(names, UNKNOWN)

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """What will run."""
        values = plain(inputs)
        if has_unknown([values.get("digest"), values.get("arguments")]):
            return []
        command = command_text(values["entryScript"], values.get("arguments") or ())
        where = "as a Job on the cluster" if values.get("image") is not None else "on this machine"
        return [f"will run `{command}` {where}, {values['timeoutMinutes']:g} minutes at most"]

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Runs it. A run that fails leaves its log and what it wrote, and no process, pod or temporary folder."""
        result = await _run(operation, plain(inputs))
        return Made(str(result.place), _computed(result))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Another run; the results of the former one go when this one has ended well."""
        news, before = plain(inputs), plain(state.outputs)
        result = await _run(operation, news)
        await asyncio.to_thread(_forget, before)
        return _computed(result)

    async def read(self, operation: Operation, state: State) -> State | None:
        """Whether its results are still there."""
        return None if await asyncio.to_thread(_gone, state) else state

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes the results on this machine; a model that was registered from them has its own copy."""
        await asyncio.to_thread(_forget, plain(state.outputs))


def _gone(state: State) -> bool:
    outputs = plain(state.outputs.get("outputsPath"))
    return not outputs or not Path(outputs).is_dir()


def _computed(result: Result) -> Computed:
    return {
        "runId": result.place.name,
        "outputsPath": str(result.outputs),
        "logPath": str(result.place / "log.txt"),
        "exitCode": 0,
        "seconds": round(result.seconds, 3),
    }


def _forget(outputs: Mapping[str, Any]) -> None:
    """The folder of a run, and only if it looks like one."""
    path = outputs.get("outputsPath")
    if path and (Path(path).parent / "job.json").is_file():
        shutil.rmtree(Path(path).parent, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(path).parent.parent.rmdir()


def _job(values: Mapping[str, Any]) -> Job:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    minutes = values.get("timeoutMinutes")
    return Job(
        run_id=f"{values['name']}-{stamp}-{secrets.token_hex(2)}",
        entry_script=values["entryScript"],
        project=Path(values["sourceDirectory"]).name or "source",
        files=project_files(values),
        results=Path(values["outputsDirectory"]),
        arguments=tuple(values.get("arguments") or ()),
        variables=dict(values.get("environmentVariables") or {}),
        longest_s=float(minutes) * 60 if minutes is not None else LONGEST_S,
    )


async def _run(operation: Operation, values: Mapping[str, Any]) -> Result:
    job = await asyncio.to_thread(_job, values)
    with disk_errors(job.results):
        return await _made(operation, values, job)


async def _made(operation: Operation, values: Mapping[str, Any], job: Job) -> Result:
    async with _Told(operation.progress).lines() as told:
        if values.get("image") is None:
            packages = values.get("pipPackages") or ()
            return await run_local(job, packages, told.say, operation.progress.status)
        pod = Pod(
            image=values["image"],
            keeper_image=values["keeperImage"],
            namespace=values.get("namespace") or "default",
            cpu_cores=values.get("cpuCores"),
            memory_gb=values.get("memoryGb"),
            gpu_cores=int(values.get("gpuCores") or 0),
            shared_memory_mb=None if values.get("sharedMemoryMb") is None else int(values["sharedMemoryMb"]),
            service_account=values.get("serviceAccount"),
            pull_secrets=tuple(values.get("pullSecrets") or ()),
        )
        connection = await asyncio.to_thread(connection_of, values.get("kubeconfig"), values.get("context"))
        async with connected(connection) as api:
            return await run_on_cluster(api, job, pod, told.say, operation.progress.status)


class _Told:
    """A log on its way to the engine: several lines at once, for a script that prints a lot."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._waiting: list[str] = []

    def say(self, line: str) -> None:
        """One line: shown at once as what goes on, and kept."""
        self._progress.status(line)
        self._waiting.append(line)
        if len(self._waiting) >= _SAY_LINES:
            self._flush()

    @contextlib.asynccontextmanager
    async def lines(self) -> "AsyncIterator[_Told]":
        """Sends them while the block runs, and what is left after it."""
        task = asyncio.create_task(self._often())
        try:
            yield self
        finally:
            task.cancel()
            self._flush()

    async def _often(self) -> None:
        while True:
            await asyncio.sleep(_SAY_S)
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._progress.info("\n".join(self._waiting))
            self._waiting.clear()
