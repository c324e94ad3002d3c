"""Model: a named set of files in the store of a target; each changed content is a new version."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes, top
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources import known_models
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.targets import check_target, local_target, same_target, supervisor
from aks_inference_provider.wire import UNKNOWN, Value, derive, has_unknown, plain
from aks_inference_runtime.api.client import ModelRegistration, SupervisorClient
from aks_inference_runtime.api.content import combined_digest, file_digest, model_files
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.api.status import ModelRecord

INPUTS = (
    Field("target", Kind.STRING, "Required. The `target` of a cluster.", required=True, replaces=True),
    Field("name", Kind.STRING, "Required. The model's name, 1 to 255 characters.", required=True, replaces=True),
    Field("path", Kind.STRING, "Required. Absolute path of a file or folder on the applying machine.", required=True),
    Field("childPaths", Kind.STRINGS, "Optional. Of a folder: only these files or folders of it. Default: all."),
    Field("tags", Kind.STRING_MAP, "Optional. Labels; they can change. Default: none."),
    Field("properties", Kind.STRING_MAP, "Optional. Facts about one version: a change makes a new version."),
    Field("description", Kind.STRING, "Optional. Text for people. Default: none."),
    Field("framework", Kind.STRING, "Optional. What it was made with. A change makes a new version. Default: none."),
    Field("frameworkVersion", Kind.STRING, "Optional. Version of `framework`, which it needs. Default: none."),
    Field("files", Kind.STRING_MAP, "Stored name → `sha256:<hex> <bytes>`.", computed=True),
    Field("digest", Kind.STRING, "`sha256:<hex>` over names and contents.", computed=True),
)
OUTPUTS = (
    Field("version", Kind.INTEGER, "The version's number, counted by name.", required=True),
    Field("modelId", Kind.STRING, "`<name>:<version>`.", required=True),
    Field("createdTime", Kind.STRING, "When this version was stored, ISO 8601.", required=True),
    Field("versions", Kind.INTEGERS, "All versions that this resource made and that are still there.", required=True),
)
FRAMEWORKS = ("Custom", "TensorFlow", "ScikitLearn", "Onnx", "TfKeras", "PyTorch", "Multi")
"""Source: azureml-core 1.61, Model.Framework."""
VERSIONED = ("files", "digest", "properties", "framework", "frameworkVersion")
"""What makes another version when it changes; the rest is updated in place."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def check(news: Mapping[str, Any]) -> list[Failure]:
    """All that is wrong with plain inputs, short of the files themselves."""
    failures = check_fields(INPUTS, news) + check_target(news.get("target"))
    name, path, framework = news.get("name"), news.get("path"), news.get("framework")
    if isinstance(name, str) and name != UNKNOWN and not _NAME.fullmatch(name):
        failures.append(
            Failure(
                "name",
                f"{name!r} is no model name: 1 to 255 letters, digits, dashes, periods, underscores; "
                "the first is a letter or digit",
            )
        )
    if isinstance(path, str) and path != UNKNOWN and not Path(path).is_absolute():
        failures.append(Failure("path", f"{path!r} is not absolute; give an absolute path"))
    if isinstance(framework, str) and framework not in (*FRAMEWORKS, UNKNOWN):
        failures.append(Failure("framework", f"{framework!r} is none of {', '.join(FRAMEWORKS)}"))
    if news.get("frameworkVersion") is not None and framework is None:
        failures.append(Failure("frameworkVersion", "needs framework; give both or neither"))
    return failures


def inspect(path: str, child_paths: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Stored names → `sha256:<hex> <bytes>`, and the digest over all. Reads every file. Raises InvalidInput."""
    try:
        found = model_files(Path(path), child_paths)
        digests = {name: file_digest(file) for name, file in found.items()}
        sizes = {name: file.stat().st_size for name, file in found.items()}
    except OSError as error:
        raise InvalidInput(f"path: {error.filename or path} cannot be read: {error.strerror}") from None
    return {name: f"{digests[name]} {sizes[name]}" for name in sorted(found)}, combined_digest(digests)


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    """What has to happen, from plain inputs: where the files lie does not count, only what is in them."""
    replacing = {field.name for field in INPUTS if field.replaces}
    quiet = {"digest"}
    if olds.get("files") == news.get("files"):
        quiet |= {"path", "childPaths"}
    found = {
        path: Difference(change, replaces=top(path) in replacing)
        for path, change in changes(olds, news).items()
        if top(path) not in quiet
    }
    if "target" in found and same_target(olds.get("target"), news.get("target")):
        del found["target"]
    # A replacement under the same name would take the new resource's version away when the old one goes.
    stays = "target" not in found and "name" not in found
    return Diff(found, delete_before_replace=stays)


def changes_version(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether plain inputs make another version."""
    return any(changes(olds.get(key), news.get(key), key) for key in VERSIONED)


def computed(inputs: Raw, record: ModelRecord, versions: list[int]) -> Computed:
    """The outputs of a stored version."""
    return {
        "version": record.version,
        "modelId": derive(lambda name: f"{name}:{record.version}", inputs.get("name")),
        "createdTime": record.created_time,
        "versions": versions,
    }


class Model:
    """A registered model, as a resource. Its id is `<state directory>/models/<name>`."""

    token = f"{PACKAGE}:index:Model"
    description = "A named, versioned set of files in the model store of a target."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check` and `inspect`."""
        values = plain(news)
        failures = check(values)
        known_models.declare(values.get("target"), values.get("name"))
        files: Value = UNKNOWN
        digest: Value = UNKNOWN
        path, children = values.get("path"), values.get("childPaths")
        wrong = {top(failure.path) for failure in failures}
        if path is not None and not has_unknown([path, children]) and not wrong & {"path", "childPaths"}:
            try:
                files, digest = await asyncio.to_thread(inspect, path, tuple(children or ()))
            except InvalidInput as error:
                failures += [_failure(line) for line in str(error).splitlines()]
        return Checked({**news, "files": files, "digest": digest}, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """See `diff`."""
        return diff(plain(state.inputs), plain(news))

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """A new version's number is unknown."""
        unknown = {field.name: UNKNOWN for field in OUTPUTS}
        if state is None or changes_version(plain(state.inputs), plain(inputs)):
            return unknown
        return {key: state.outputs.get(key, UNKNOWN) for key in unknown}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Stores the files; the same ones again are the same version."""
        target = local_target(plain(inputs)["target"])
        record = await self._put(operation, inputs)
        return Made(f"{target.state_directory}/models/{record.name}", computed(inputs, record, [record.version]))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As create; earlier versions stay for the endpoints that use them."""
        record = await self._put(operation, inputs)
        return computed(inputs, record, sorted({*_versions(state), record.version}))

    async def read(self, operation: Operation, state: State) -> State | None:
        """As it is stored: gone when its version is gone; tags and description as they are now."""
        directory, _, name = state.id.rpartition("/models/")
        client = SupervisorClient(directory)
        version = plain(state.outputs.get("version"))
        try:
            known = sorted(record.version for record in await client.models() if record.name == name)
            if not known or (version is not None and int(version) not in known):
                return None
            record = await client.get_model(name, int(version) if version is not None else known[-1])
        except RuntimeUnavailable as error:
            operation.progress.warn(f"not read: {error}")
            return state
        if not state.inputs:
            inputs = await _imported(client, directory, record)
            return State(state.id, inputs, {**inputs, **computed(inputs, record, [record.version])})
        inputs = {**state.inputs}
        for key, value in (("tags", record.tags), ("description", record.description)):
            if plain(inputs.get(key)) != value and (value or inputs.get(key)):
                inputs[key] = value
        versions = [each for each in _versions(state) if each in known]
        return State(state.id, inputs, {**inputs, **computed(inputs, record, versions)})

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes the versions that it made; what an endpoint still uses stays, with a warning."""
        name = state.id.rpartition("/models/")[2]
        async with supervisor(plain(state.inputs)["target"], operation) as client:
            if client is None:
                return
            for version in _versions(state):
                try:
                    await client.delete_model(name, version)
                except NotFound:
                    continue
                except Conflict as error:
                    operation.progress.warn(f"version {version} stays: {error}")

    async def _put(self, operation: Operation, inputs: Raw) -> ModelRecord:
        values = plain(inputs)
        operation.progress.status(f"storing {len(values['files'])} file(s)")
        registration = ModelRegistration(
            name=values["name"],
            source_path=values["path"],
            child_paths=tuple(values.get("childPaths") or ()),
            tags=values.get("tags") or {},
            properties=values.get("properties") or {},
            description=values.get("description"),
            framework=values.get("framework"),
            framework_version=values.get("frameworkVersion"),
        )
        async with supervisor(values["target"], operation, needed=True) as client:
            assert client is not None  # noqa: S101 - `needed` raises instead
            record = await client.put_model(registration)
        expected = {name: text.split(" ")[0] for name, text in values["files"].items()}
        if record.files != expected:
            raise ResourceFailed(
                f"the files of {values['path']} changed between the check and the upload; apply again when they rest"
            )
        return record


def _versions(state: State) -> list[int]:
    return [int(version) for version in plain(state.outputs.get("versions")) or ()]


def _failure(line: str) -> Failure:
    """The api's messages name the property first."""
    key, _, reason = line.partition(": ")
    return Failure(key, reason) if key in {field.name for field in INPUTS} else Failure("path", line)


async def _imported(client: SupervisorClient, directory: str, record: ModelRecord) -> Raw:
    """Inputs for a model that no program declared yet; the path is where the store keeps it."""
    from aks_inference_runtime.api.target import LocalTarget, format_target

    info = await client.info()
    given = {
        "tags": record.tags,
        "properties": record.properties,
        "description": record.description,
        "framework": record.framework,
        "frameworkVersion": record.framework_version,
    }
    return {
        "target": format_target(LocalTarget(name=info.name, state_directory=directory, port=info.port)),
        "name": record.name,
        **{key: value for key, value in given.items() if value},
        "digest": record.digest,
    }
