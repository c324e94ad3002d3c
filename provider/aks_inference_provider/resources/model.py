"""Model: a named set of files in the store of a target; each changed content is a new version."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes, top
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields, failures_of
from aks_inference_provider.resources import known_models
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.model_content import change_note, look
from aks_inference_provider.resources.model_places import open_place, present, reading_place, resource_id
from aks_inference_provider.resources.targets import check_target, same_target
from aks_inference_provider.wire import UNKNOWN, Value, derive, has_unknown, plain
from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.errors import AksInferenceError, Conflict, InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.api.models import Framework, is_remote
from aks_inference_runtime.api.state_folder import unwritable
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.api.target import LocalTarget, format_target
from aks_inference_runtime.models.sources.address import parse_address
from aks_inference_runtime.models.stores import open_store

LOOK_S = 5.0
"""Of a store, for a note in a preview."""
INPUTS = (
    Field("target", Kind.STRING, "Conditional. A cluster's `target`; required unless `store` is given.", replaces=True),
    Field(
        "store",
        Kind.STRING,
        "Conditional. A store, in place of a target: an absolute folder, `az://account/container/prefix` or `oci://registry/repository`.",
        replaces=True,
    ),
    Field("name", Kind.STRING, "Required. The model's name, 1 to 255 characters.", required=True, replaces=True),
    Field("path", Kind.STRING, "Required. Absolute path of a file or folder, or a remote source.", required=True),
    Field("childPaths", Kind.STRINGS, "Optional. Of a folder: only these files or folders of it. Default: all."),
    Field("tags", Kind.STRING_MAP, "Optional. Labels; they can change. Default: none."),
    Field("properties", Kind.STRING_MAP, "Optional. Facts about one version: a change makes a new version."),
    Field("description", Kind.STRING, "Optional. Text for people. Default: none."),
    Field("framework", Kind.STRING, "Optional. What it was made with. A change makes a new version. Default: none."),
    Field("frameworkVersion", Kind.STRING, "Optional. Version of `framework`, which it needs. Default: none."),
    Field("facts", Kind.OBJECT, "Optional. More that is known: lineage, samples, resources. Default: none."),
    Field("unpack", Kind.BOOLEAN, "Optional. A remote zip or tar stands for the files in it. Default: false."),
    Field("trackingUri", Kind.STRING, "Optional. MLflow's server. Default: `MLFLOW_TRACKING_URI`."),
    Field("revision", Kind.STRING, "What tells whether a remote source has changed.", computed=True),
    Field("files", Kind.STRING_MAP, "Stored name → `sha256:<hex> <bytes>`.", computed=True),
    Field("digest", Kind.STRING, "`sha256:<hex>` over names and contents.", computed=True),
)
OUTPUTS = (
    Field("version", Kind.INTEGER, "The version's number, counted by name.", required=True),
    Field("modelId", Kind.STRING, "`<name>:<version>`.", required=True),
    Field("createdTime", Kind.STRING, "When this version was stored, ISO 8601.", required=True),
    Field("versions", Kind.INTEGERS, "All versions that this resource made and that are still there.", required=True),
)
FRAMEWORKS = tuple(framework.value for framework in Framework)
QUIET = ("digest", "revision")
"""What `files` says already."""
VERSIONED = ("files", "digest", "properties", "framework", "frameworkVersion")
"""What makes another version when it changes; the rest is updated in place."""
_WITHOUT_FILES = {
    "properties": "other properties",
    "framework": "another framework",
    "frameworkVersion": "another version of its framework",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def check(news: Mapping[str, Any]) -> list[Failure]:
    """All that is wrong with plain inputs, short of the files themselves."""
    failures = check_fields(INPUTS, news) + check_target(news.get("target")) + _check_place(news)
    name, path, framework = news.get("name"), news.get("path"), news.get("framework")
    if isinstance(name, str) and name != UNKNOWN and not _NAME.fullmatch(name):
        failures.append(
            Failure(
                "name",
                f"{name!r} is no model name: 1 to 255 letters, digits, dashes, periods, underscores; "
                "the first is a letter or digit",
            )
        )
    if isinstance(path, str) and path != UNKNOWN:
        failures += _check_path(path)
    if isinstance(framework, str) and framework not in (*FRAMEWORKS, UNKNOWN):
        failures.append(Failure("framework", f"{framework!r} is none of {', '.join(FRAMEWORKS)}"))
    if news.get("frameworkVersion") is not None and framework is None:
        failures.append(Failure("frameworkVersion", "needs framework; give both or neither"))
    return failures


def _check_place(news: Mapping[str, Any]) -> list[Failure]:
    target, store = news.get("target"), news.get("store")
    if (target is None) == (store is None):
        return [Failure("target", "is required, or store" if target is None else "is given beside store; give one")]
    if isinstance(store, str) and store != UNKNOWN:
        try:
            open_store(store)
        except InvalidInput as error:
            return [Failure("store", str(error))]
    return []


def _check_folder(store: object) -> list[Failure]:
    if not isinstance(store, str) or not store.startswith("/"):
        return []
    try:
        problem = unwritable(Path(store))
    except (OSError, ValueError) as error:
        return [Failure("store", f"{store!r} cannot be looked at ({error}); give another folder")]
    return [Failure("store", f"{store!r} {'; '.join(problem)}")] if problem else []


def _check_path(path: str) -> list[Failure]:
    if not is_remote(path):
        return [] if Path(path).is_absolute() else [Failure("path", f"{path!r} is not absolute; give an absolute path")]
    try:
        parse_address(path)
    except InvalidInput as error:
        return [Failure("path", str(error))]
    return []


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    """What has to happen, from plain inputs: where the files lie does not count, only what is in them."""
    replacing = {field.name for field in INPUTS if field.replaces}
    quiet = set(QUIET)
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
    description = "A named, versioned set of files in the model store of a target, or in a store of its own."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check` and `inspect`."""
        values = plain(news)
        failures = check(values) + await asyncio.to_thread(_check_folder, values.get("store"))
        known_models.declare(values.get("target"), values.get("name"))
        found: Raw = {"files": UNKNOWN, "digest": UNKNOWN}
        path = values.get("path")
        wrong = {top(failure.path) for failure in failures}
        watched = ("path", "childPaths", "unpack", "trackingUri", "facts")
        if path is not None and not has_unknown([values.get(key) for key in watched]) and not wrong & set(watched):
            try:
                content = await look(plain(olds), values)
            except AksInferenceError as error:
                failures += failures_of(error, {field.name for field in INPUTS}, "path")
            else:
                found = {"files": content.files, "digest": content.digest}
                found |= {"revision": content.revision} if content.revision else {}
                if content.lineage:
                    # What the program says wins: a version may stand for another run than the one it was taken from.
                    found["facts"] = {**content.lineage, **_object(news.get("facts"))}
        return Checked({**news, **found}, failures)

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """Which files changed and how many bytes will be sent, for a preview."""
        olds, news = plain(state.inputs) if state is not None else {}, plain(inputs)
        if has_unknown(news.get("files")):
            return []
        if state is not None and olds.get("files") == news.get("files"):
            other = [words for key, words in _WITHOUT_FILES.items() if changes(olds.get(key), news.get(key), key)]
            text = f"model {news.get('name')}: the same files with {' and '.join(other)} are another version"
            return [text] if other else []
        known: set[str] | None = None
        cautions = []
        if not has_unknown([news.get("target"), news.get("store"), news.get("name")]):
            try:
                async with asyncio.timeout(LOOK_S):
                    known = await present(news, [text.split(" ")[0] for text in news["files"].values()])
            except (AksInferenceError, TimeoutError) as error:
                # It may answer when it is applied, as a local cluster that is not there yet does; all is counted.
                if news.get("store"):
                    cautions = [Caution(_not_asked(news["store"], error))]
        return [change_note(olds, news, known), *cautions]

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
        record = await self._put(operation, inputs)
        return Made(resource_id(plain(inputs)), computed(inputs, record, [record.version]))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As create; earlier versions stay for the endpoints that use them."""
        record = await self._put(operation, inputs)
        return computed(inputs, record, sorted({*_versions(state), record.version}))

    async def read(self, operation: Operation, state: State) -> State | None:
        """As it is stored: gone when its version is gone; tags and description as they are now."""
        directory, _, name = state.id.rpartition("/models/")
        version = plain(state.outputs.get("version"))
        try:
            records = {record.version: record for record in await _versions_of(state, name)}
            wanted = int(version) if version is not None else max(records, default=0)
            if wanted not in records:
                return None
            record = records[wanted]
        except (RuntimeUnavailable, InvalidInput) as error:
            operation.progress.warn(f"not read: {error}")
            return state
        if not state.inputs:
            inputs = await _imported(directory, record)
            return State(state.id, inputs, {**inputs, **computed(inputs, record, [record.version])})
        inputs = {**state.inputs}
        for key, value in (("tags", record.tags), ("description", record.description)):
            if plain(inputs.get(key)) != value and (value or inputs.get(key)):
                inputs[key] = value
        versions = [each for each in _versions(state) if each in records]
        return State(state.id, inputs, {**inputs, **computed(inputs, record, versions)})

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes the versions that it made; what an endpoint still uses stays, with a warning."""
        name = state.id.rpartition("/models/")[2]
        async with open_place(plain(state.inputs), operation) as place:
            if place is None:
                return
            for version in _versions(state):
                try:
                    await place.delete(name, version)
                except NotFound:
                    continue
                except Conflict as error:
                    operation.progress.warn(f"version {version} stays: {error}")

    async def _put(self, operation: Operation, inputs: Raw) -> ModelRecord:
        values = plain(inputs)
        async with open_place(values, operation, needed=True) as place:
            assert place is not None  # noqa: S101 - `needed` raises instead
            record = await place.put(operation, values)
        expected = {name: text.split(" ")[0] for name, text in values["files"].items()}
        if record.files != expected:
            raise ResourceFailed(
                f"the files of {values['path']} changed between the check and the upload; apply again when they rest"
            )
        return record


def _object(value: Value) -> dict[str, Value]:
    return value if isinstance(value, dict) else {}


def _not_asked(store: str, error: BaseException) -> str:
    why = f"no answer within {LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)
    return f"store {store}: not known what it has already ({why})"


async def _versions_of(state: State, name: str) -> Sequence[ModelRecord]:
    return await reading_place(plain(state.inputs), state.id).versions(name)


def _versions(state: State) -> list[int]:
    return [int(version) for version in plain(state.outputs.get("versions")) or ()]


async def _imported(place: str, record: ModelRecord) -> Raw:
    """Inputs for a model that no program declared yet; the path is where the store keeps it."""
    given = {
        "tags": record.tags,
        "properties": record.properties,
        "description": record.description,
        "framework": record.framework,
        "frameworkVersion": record.framework_version,
    }
    where = {"store": place} if place.startswith(("az://", "oci://")) else {"target": await _target_of(place)}
    return {
        **where,
        "name": record.name,
        **{key: value for key, value in given.items() if value},
        "digest": record.digest,
    }


async def _target_of(directory: str) -> str:
    info = await SupervisorClient(directory).info()
    return format_target(LocalTarget(name=info.name, state_directory=directory, port=info.port))
