"""The text of a checkpoint file: read with care, since a damaged state must never be taken for an empty one."""

import dataclasses
import json
import weakref
from collections.abc import Callable
from pathlib import Path

from embedded_engine.errors import StateError
from embedded_engine.model import CHECKPOINT_VERSION, Json, Resource, Snapshot
from embedded_engine.wirejson import dumps


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """`deployment` is None where the stack was never updated."""

    stack: str
    deployment: Json | None


def parse_checkpoint(text: bytes, path: Path) -> Checkpoint:
    """Raises `StateError` for what is no checkpoint, or one of a version that this engine does not know."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("checkpoint"), dict):
        raise damaged(path, "it holds no checkpoint")
    check_version(content.get("version"), f"the state file {path}")
    if content.get("features"):
        found = content["features"]
        names = ", ".join(map(str, found if isinstance(found, list) else [found]))
        raise StateError(f"the state file {path} uses features that this engine does not know: {names}.")
    checkpoint = content["checkpoint"]
    latest = checkpoint.get("latest")
    if latest is not None and not isinstance(latest, dict):
        raise damaged(path, "`latest` is no deployment")
    try:
        Snapshot.from_deployment(latest or {})
    except StateError as error:
        raise damaged(path, str(error)) from None
    return Checkpoint(str(checkpoint.get("stack", "")), latest)


def intact(snapshot: Snapshot, path: Path) -> Snapshot:
    """The snapshot that the file holds; raises `StateError` where it cannot be used."""
    if problems := integrity_problems(snapshot):
        raise damaged(path, "; ".join(problems[:10]))
    return snapshot


def damaged(path: Path, reason: str) -> StateError:
    """What is said of a stack's state that cannot be used: which file, why, and what there is in its place."""
    backup = path.with_name(f"{path.name}.bak")
    before = f" The state before the last write is in {backup}." if backup.exists() else ""
    return StateError(f"the state file {path} is damaged: {reason}. Nothing was changed.{before}")


def check_version(version: object, what: str) -> None:
    """Raises `StateError` unless it is the version that this engine reads."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise StateError(f"{what} is damaged: its version is {version!r}. Nothing was changed.")
    if version > CHECKPOINT_VERSION:
        raise StateError(
            f"{what} has version {version}, which is newer than this engine knows ({CHECKPOINT_VERSION}): "
            "a newer engine wrote it. Nothing was changed."
        )
    if version < CHECKPOINT_VERSION:
        raise StateError(
            f"{what} has version {version}; this engine reads only version {CHECKPOINT_VERSION}. "
            "`pulumi stack export` and `pulumi stack import` bring it up to date."
        )


class Serializer:
    """Turns snapshots into the bytes of a checkpoint file, and each unchanged resource only once.

    `encode` gives a resource's stored form (see `Snapshot.to_deployment`).
    """

    def __init__(self, encode: Callable[[Json], Json]) -> None:
        self._encode = encode
        self._texts: weakref.WeakKeyDictionary[Resource, str] = weakref.WeakKeyDictionary()

    def __call__(self, stack: str, snapshot: Snapshot) -> bytes:
        # The parts are put together as text: a state of many resources is written at every step.
        parts = [f'"manifest":{dumps(snapshot.manifest)}']
        if snapshot.secrets_providers:
            parts.append(f'"secrets_providers":{dumps(snapshot.secrets_providers)}')
        if snapshot.resources:
            parts.append(f'"resources":[{",".join(map(self._text, snapshot.resources))}]')
        if snapshot.operations:
            operations = (
                f'{{"resource":{self._text(o.resource)},"type":{dumps(o.kind.value)}}}' for o in snapshot.operations
            )
            parts.append(f'"pending_operations":[{",".join(operations)}]')
        parts.append(f'"metadata":{dumps(snapshot.metadata)}')
        parts += [f"{dumps(key)}:{dumps(value)}" for key, value in snapshot.extra.items()]
        latest = "{" + ",".join(parts) + "}"
        return (
            f'{{"version":{CHECKPOINT_VERSION},"checkpoint":{{"stack":{dumps(stack)},"latest":{latest}}}}}'
        ).encode()

    def _text(self, resource: Resource) -> str:
        text = self._texts.get(resource)
        if text is None:
            text = self._texts[resource] = dumps(self._encode(resource.to_wire()))
        return text


def empty_checkpoint(stack: str) -> bytes:
    return dumps({"version": CHECKPOINT_VERSION, "checkpoint": {"stack": stack}}).encode()


def integrity_problems(snapshot: Snapshot) -> list[str]:
    """What makes a snapshot unusable: a resource that needs one which is missing or stands after it, or two alike."""
    problems: list[str] = []
    seen: set[str] = set()
    live: set[str] = set()
    providers: set[str] = set()
    for resource in snapshot.resources:
        if not resource.delete:
            if resource.urn in live:
                problems.append(f"{resource.urn} stands there twice")
            live.add(resource.urn)
        problems += [f"{resource.urn} {problem}" for problem in _needs(resource, seen, providers)]
        seen.add(resource.urn)
        if resource.type.startswith("pulumi:providers:"):
            providers.add(f"{resource.urn}::{resource.id}")
    return problems


def _needs(resource: Resource, seen: set[str], providers: set[str]) -> list[str]:
    problems = []
    if resource.provider and resource.provider not in providers:
        problems.append(f"uses the provider {resource.provider}, which does not stand before it")
    if resource.parent and resource.parent not in seen:
        problems.append(f"is a child of {resource.parent}, which does not stand before it")
    missing = [urn for urn in resource.dependencies if urn not in seen]
    missing += [urn for urns in resource.property_dependencies.values() for urn in urns if urn not in seen]
    if resource.deleted_with and resource.deleted_with not in seen:
        missing.append(resource.deleted_with)
    problems += [f"depends on {urn}, which does not stand before it" for urn in dict.fromkeys(missing)]
    return problems


def checked(snapshot: Snapshot, what: str) -> Snapshot:
    """The snapshot; raises `StateError` where it cannot be used."""
    if problems := integrity_problems(snapshot):
        raise StateError(f"{what} is damaged: nothing was changed.\n  " + "\n  ".join(problems[:10]))
    return snapshot
